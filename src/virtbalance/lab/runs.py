"""Where a lab keeps its files, and what a killed one left behind.

Every run has a folder of its own, with the name of its owner in it, under a folder of the user's:

    BASE/vb-UID/lock       held while a run is made or cleaned up
    BASE/vb-UID/RUN/owner  the process the run belongs to; empty: it is kept until asked to end
    BASE/vb-UID/RUN/run    libvirt's run directory, with the guests' pid files in run/qemu
    BASE/vb-UID/RUN/lib    libvirt's state, with the pid file of a QEMU it asks what it can do

QEMU processes outlive the libvirt that started them. So whoever makes a run first cleans up runs
whose owner is gone: ends the processes named by their pid files, each only if it proves to be of
that run, and removes the folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from virtbalance.lab.control_groups import guest_groups, remove_groups
from virtbalance.lab.errors import LabError
from virtbalance.lab.processes import Owner, command_line, end_process, mount_namespace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAMESPACE_FILE = "namespace"
"""In a run of a private libvirtd: the mount namespaces its processes are in, one a line."""


def new_run(say: Callable[[str], None], base: Path | None = None) -> Path:
    """Clean up what killed labs left and return a new run's folder, owned by this process."""
    with _locked(base) as folder:
        _clean_up(folder, say)
        run = folder / secrets.token_hex(4)
        run.mkdir(mode=0o711)
        _write_owner(run, str(Owner.this()))
    return run


def keep_run(run: Path) -> None:
    """Let a run outlive this process, until end_kept_runs."""
    _write_owner(run, "")


def end_kept_runs(base: Path) -> None:
    """End the runs that were kept."""
    with _locked(base) as folder:
        for run in _runs(folder):
            if _owner_text(run) == "":
                end_run(run)


def end_run(run: Path) -> int:
    """End a run's processes, remove its folder and say how many processes were ended."""
    ended = sum(_end(pid, run) for pid in set(_pids(run)))
    shutil.rmtree(run, ignore_errors=True)
    return ended


def _end(pid: int, run: Path) -> bool:
    groups = guest_groups(pid)
    ended = end_process(pid, lambda pid: _belongs(pid, run))
    if ended:
        remove_groups(groups)
    return ended


@contextlib.contextmanager
def _locked(base: Path | None) -> Iterator[Path]:
    folder = _base() if base is None else base
    try:
        folder.mkdir(mode=0o711, parents=True, exist_ok=True)
    except OSError as error:
        raise LabError(f"{folder}: {error.strerror}") from error
    if folder.stat().st_uid != os.geteuid():
        raise LabError(f"{folder} belongs to somebody else")
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def _base() -> Path:
    base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    return Path(base) / f"vb-{os.geteuid()}"


def _clean_up(folder: Path, say: Callable[[str], None]) -> None:
    for run in _runs(folder):
        text = _owner_text(run)
        owner = Owner.parse(text or "")
        if text == "" or (owner is not None and owner.alive()):
            continue
        ended = end_run(run)
        say(f"lab: cleaned up after a lab that was killed ({ended} processes ended)")


def _runs(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())


def _owner_text(run: Path) -> str | None:
    try:
        return (run / "owner").read_text("ascii")
    except OSError:
        return None


def _write_owner(run: Path, text: str) -> None:
    temporary = run / "owner.new"
    temporary.write_text(text)
    temporary.rename(run / "owner")


def _pids(run: Path) -> Iterator[int]:
    patterns = ("run/*.pid", "run/qemu/*.pid", "lib/qemu/*/qmp.pid")
    for path in (path for pattern in patterns for path in run.glob(pattern)):
        with contextlib.suppress(OSError, ValueError):
            yield int(path.read_text("ascii"))


def _belongs(pid: int, run: Path) -> bool:
    """Say whether a process is of a run: it names the folder, or is in the run's namespace."""
    if pid == os.getpid():  # libvirt's embedded driver writes its own process's pid file, too
        return False
    if f"{run}/" in command_line(pid):
        return True
    try:
        return mount_namespace(pid) in (run / NAMESPACE_FILE).read_text("ascii").splitlines()
    except OSError:
        return False
