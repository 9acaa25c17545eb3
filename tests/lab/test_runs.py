"""What a killed lab left is cleaned up by the next: all of it, and nothing else."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from virtbalance.lab import LabError
from virtbalance.lab.control_groups import guest_groups, remove_groups
from virtbalance.lab.processes import command_line, mount_namespace
from virtbalance.lab.runs import end_kept_runs, end_run, keep_run, new_run

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start processes that do nothing but carry the words they are given."""
    started = []

    def one(*words: object) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", "import time; time.sleep(60)", *map(str, words)]
        started.append(subprocess.Popen(command))
        while not command_line(started[-1].pid):  # empty for a moment after exec
            time.sleep(0.01)
        return started[-1]

    yield one
    for process in started:
        process.kill()
        process.wait()


def killed_run(base: Path) -> Path:
    """Make a run in a process that is killed at once; return its folder."""
    code = (
        "import os, sys; from pathlib import Path; from virtbalance.lab.runs import new_run;"
        "print(new_run(print, Path(sys.argv[1])), flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, base], capture_output=True, text=True, check=False
    )
    assert done.returncode == -9, done.stderr
    return Path(done.stdout.splitlines()[-1])


def pid_file(run: Path, name: str, pid: int) -> None:
    path = run / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{pid}\n")


def running(process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is None


def test_guests_of_a_killed_run_are_ended_and_its_folder_removed(
    tmp_path: Path, start: Start
) -> None:
    run = killed_run(tmp_path)
    guest, probe = start(f"path={run}/lib/x"), start(f"unix:{run}/lib/qemu/q/qmp.monitor")
    pid_file(run, "run/qemu/g.pid", guest.pid)
    pid_file(run, "lib/qemu/q/qmp.pid", probe.pid)
    said: list[str] = []
    new = new_run(said.append, tmp_path)
    assert not run.exists()
    assert not running(guest)
    assert not running(probe)
    assert said == ["lab: cleaned up after a lab that was killed (2 processes ended)"]
    assert new.is_dir()


def test_a_number_that_another_process_has_by_now_is_left_alone(
    tmp_path: Path, start: Start
) -> None:
    run = killed_run(tmp_path)
    stranger = start("/somewhere/else", f"{run}x/")
    pid_file(run, "run/qemu/g.pid", stranger.pid)
    pid_file(run, "run/qemu/driver.pid", os.getpid())
    pid_file(run, "run/qemu/broken.pid", 0)
    (run / "run/qemu/broken.pid").write_text("not a number")
    new_run(lambda _: None, tmp_path)
    assert not run.exists()
    assert running(stranger)


def test_processes_in_the_mount_namespace_of_a_run_are_its_own(
    tmp_path: Path, start: Start
) -> None:
    run = killed_run(tmp_path)
    (run / "namespace").write_text("mnt:[1]\n" + mount_namespace(os.getpid()) + "\n")
    daemon = start("--no-path")
    pid_file(run, "run/libvirtd.pid", daemon.pid)
    new_run(lambda _: None, tmp_path)
    assert not running(daemon)


def test_runs_of_the_living_and_kept_runs_stay(tmp_path: Path, start: Start) -> None:
    mine, kept = new_run(print, tmp_path), new_run(print, tmp_path)
    keep_run(kept)
    said: list[str] = []
    new_run(said.append, tmp_path)
    assert mine.is_dir()
    assert kept.is_dir()
    assert said == []
    end_kept_runs(tmp_path)
    assert not kept.exists()
    assert mine.is_dir()


def test_ending_a_run_of_ones_own(tmp_path: Path, start: Start) -> None:
    run = new_run(print, tmp_path)
    guest = start(f"path={run}/lib/x")
    pid_file(run, "run/qemu/g.pid", guest.pid)
    assert end_run(run) == 1
    assert not run.exists()
    assert not running(guest)
    assert end_run(run) == 0


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LabError, match="file/runs: Not a directory"):
        new_run(print, tmp_path / "file" / "runs")


def test_two_at_once_make_two_runs(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from virtbalance.lab.runs import new_run;"
        "print(new_run(print, Path(sys.argv[1])), flush=True); sys.stdin.read()"
    )
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code, tmp_path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    runs = {process.stdout.readline().strip() for process in both if process.stdout}
    assert len(runs) == 2
    assert all(Path(run).is_dir() for run in runs)
    for process in both:
        process.communicate()


def test_control_groups_are_found_and_removed(tmp_path: Path) -> None:
    assert guest_groups(os.getpid()) == set()
    assert guest_groups(2**22 - 1) == set()
    group = "machine/qemu-embed-1234-1-g.libvirt-qemu"
    for hierarchy in ("cpu", "memory", "."):
        (tmp_path / hierarchy / group / "vcpu0").mkdir(parents=True)
        (tmp_path / hierarchy / "machine/other").mkdir()
    remove_groups({group}, tmp_path)
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert left == [
        "cpu", "cpu/machine", "cpu/machine/other",
        "machine", "machine/other",
        "memory", "memory/machine", "memory/machine/other",
    ]  # fmt: skip
