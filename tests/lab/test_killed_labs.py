"""What a lab leaves when it is killed, and that the next one ends it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.conftest import await_
from virtbalance.lab import Lab
from virtbalance.lab.control_groups import guest_groups
from virtbalance.lab.processes import command_line
from virtbalance.lab.runs import new_run

pytestmark = pytest.mark.lab

STARTS_ONE = """
import sys, time
from virtbalance.lab import GuestSpec, Lab
with Lab.embedded(say=lambda text: None) as lab:
    (guest,) = lab.start([GuestSpec(name="orphan", maximum_mib=192)])
    print(guest.pid, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A runtime directory of its own, short enough for sockets, that no other lab cleans up."""
    folder = Path("/tmp") / f"vt-{os.getpid()}"
    folder.mkdir()
    yield folder
    subprocess.run(["rm", "-rf", folder], check=True)


def start(base: Path) -> tuple[subprocess.Popen[str], int]:
    process = subprocess.Popen(
        [sys.executable, "-c", STARTS_ONE],
        env={**os.environ, "XDG_RUNTIME_DIR": str(base)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def groups_left(groups: set[str]) -> list[Path]:
    root = Path("/sys/fs/cgroup")
    return [path for group in groups for path in (*root.glob(group), *root.glob(f"*/{group}"))]


def test_guests_of_a_killed_process_are_ended_by_the_next(lab: Lab, base: Path) -> None:
    process, guest = start(base)
    groups = guest_groups(guest)
    process.kill()
    process.communicate()
    assert "guest=orphan" in command_line(guest)

    said: list[str] = []
    new_run(said.append, base / f"vb-{os.geteuid()}")
    assert "guest=orphan" not in command_line(guest)
    assert groups_left(groups) == []
    # The embedded driver leaves its own process's pid file, and it is nobody's guest.
    assert said == ["lab: cleaned up after a lab that was killed (1 processes ended)"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_process_ends_its_guests_itself(
    lab: Lab, base: Path, number: signal.Signals
) -> None:
    process, guest = start(base)
    groups = guest_groups(guest)
    process.send_signal(number)
    process.communicate(timeout=30)
    if number == signal.SIGTERM:  # nobody handles it in this little program: as if killed
        new_run(print, base / f"vb-{os.geteuid()}")
    await_(lambda: "guest=orphan" not in command_line(guest))
    assert groups_left(groups) == []
    if number == signal.SIGINT:
        assert [path.name for path in (base / f"vb-{os.geteuid()}").iterdir()] == ["lock"]


@pytest.mark.parametrize(
    ("words", "number"),
    [
        ("demo --seconds 60", signal.SIGTERM),
        ("bench run c1/4-on-2/1s --on lab", signal.SIGHUP),
    ],
)
def test_a_command_that_is_ended_leaves_no_guest(
    lab: Lab, base: Path, words: str, number: signal.Signals
) -> None:
    process = subprocess.Popen(
        [Path(sys.executable).with_name("virt-balance"), *words.split()],
        env={**os.environ, "XDG_RUNTIME_DIR": str(base)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    runs = base / f"vb-{os.geteuid()}"
    guests: list[int] = []

    def started() -> bool:
        files = [*runs.glob("*/run/qemu/*.pid")]
        guests[:] = [int(file.read_text() or 0) for file in files if file.stem != "driver"]
        return len(guests) >= 4 and all(guests)

    await_(started)
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    await_(lambda: not any("guest=" in command_line(guest) for guest in guests))
    assert [path.name for path in runs.iterdir()] == ["lock"]


@pytest.mark.lab_full
def test_a_start_that_is_interrupted_leaves_no_guest(base: Path) -> None:
    code = STARTS_ONE.replace("(guest,) = lab.start([", "print(0, flush=True); lab.start([")
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "XDG_RUNTIME_DIR": str(base)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    pids = base / f"vb-{os.geteuid()}"
    await_(lambda: bool(list(pids.glob("*/run/qemu/orphan.pid"))))
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert [path.name for path in pids.iterdir()] == ["lock"]
