"""Reservations as files: seen by others, gone with their holder, whatever became of it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from virtbalance.control.reservations import Reservations
from virtbalance.model.reservation import Reservation

FIRST = Reservation(4096, frozenset({"a", "b"}))
SECOND = Reservation(512, frozenset())
HOLDER = """
import sys
from pathlib import Path
from virtbalance.control.reservations import Reservations
from virtbalance.model.reservation import Reservation
with Reservations(Path(sys.argv[1])).held(Reservation(7, frozenset())):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_there_are_as_many_as_are_held(tmp_path: Path) -> None:
    reservations = Reservations(tmp_path)
    assert reservations.current() == ()
    with reservations.held(FIRST):
        assert Reservations(tmp_path).current() == (FIRST,)
        with reservations.held(SECOND):
            assert reservations.current() == (FIRST, SECOND)
        assert reservations.current() == (FIRST,)
    assert reservations.current() == ()
    assert list((tmp_path / "reservations").iterdir()) == []


def test_one_whose_holder_fails_is_gone(tmp_path: Path) -> None:
    reservations = Reservations(tmp_path)
    with pytest.raises(RuntimeError), reservations.held(FIRST):
        raise RuntimeError
    assert reservations.current() == ()


def test_one_whose_holder_is_killed_is_gone_and_its_file_as_well(tmp_path: Path) -> None:
    reservations = Reservations(tmp_path)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    assert reservations.current() == (Reservation(7, frozenset()),)
    holder.kill()
    holder.communicate()
    assert reservations.current() == ()
    assert list((tmp_path / "reservations").iterdir()) == []


def test_the_command_that_is_run_does_not_hold_it(tmp_path: Path) -> None:
    reservations = Reservations(tmp_path)
    with reservations.held(FIRST):
        child = subprocess.Popen(["sleep", "60"])
    assert reservations.current() == ()
    child.kill()
    child.wait()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_can_not_be_made_is_an_os_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError), Reservations(tmp_path).held(FIRST):
        pass
