"""One instance a host and role."""

import subprocess
import sys
from pathlib import Path

import pytest

from virtbalance.control.instance import AlreadyRunningError, InstanceLock

HOLD = """
import sys, pathlib
from virtbalance.control.instance import InstanceLock
lock = InstanceLock(pathlib.Path(sys.argv[1]), "it")
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_one_is_told_who_is_first(tmp_path: Path) -> None:
    path = tmp_path / "run" / "cpu.lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(
            AlreadyRunningError, match=f"it is already running .process {other.pid}."
        ):
            InstanceLock(path, "it")
        other.kill()
    with InstanceLock(path, "it"):
        pass


def test_it_can_be_taken_again_after_its_release(tmp_path: Path) -> None:
    for _ in range(2):
        with InstanceLock(tmp_path / "cpu.lock", "it"):
            pass
