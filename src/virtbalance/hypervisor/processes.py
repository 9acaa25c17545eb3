"""A local guest's process: found by libvirt's pid file, its vCPU threads by their names.

libvirt starts QEMU with ``debug-threads=on``, so that a vCPU's thread is called ``CPU 3/KVM`` (or
``/TCG``). A pid file may be stale and a pid used again, so a find counts only together with the
process's start time, and the threads only once libvirt's own figures agree with them (guests.py).
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

_THREAD_NAME = re.compile(r"CPU (\d+)/\w+")
_START_TIME_FIELD = 19  # field 22 of proc(5), counted behind the parenthesised command


class GuestProcess(NamedTuple):
    """A QEMU process: its pid means nothing without its start time."""

    pid: int
    start_time: int


def find_process(pid_folders: Sequence[Path], name: str, proc: Path) -> GuestProcess | None:
    """Find the process of the guest called ``name``; ``None`` if no pid file leads to one."""
    for folder in pid_folders:
        text = _text(folder / f"{name}.pid").strip()
        if text.isdigit() and (start_time := start_time_of(int(text), proc)) is not None:
            return GuestProcess(int(text), start_time)
    return None


def start_time_of(pid: int, proc: Path) -> int | None:
    """Return when a process started, in clock ticks since boot; ``None`` if there is none."""
    stat = _text(proc / str(pid) / "stat")
    fields = stat.rpartition(")")[2].split()
    return int(fields[_START_TIME_FIELD]) if len(fields) > _START_TIME_FIELD else None


def find_vcpu_threads(pid: int, proc: Path) -> dict[int, int]:
    """Return the thread id of each vCPU of a QEMU process; empty if threads have no names."""
    threads: dict[int, int] = {}
    folder = proc / str(pid) / "task"
    try:
        thread_ids = [int(path.name) for path in folder.iterdir()]
    except OSError:
        return {}
    for thread_id in thread_ids:
        found = _THREAD_NAME.fullmatch(_text(folder / str(thread_id) / "comm").strip())
        if found:
            threads[int(found[1])] = thread_id
    return dict(sorted(threads.items()))


def is_vcpu_thread(folder: Path) -> bool:
    """Whether a thread's folder in /proc is that of a vCPU; false if it has ended."""
    return _THREAD_NAME.fullmatch(_text(folder / "comm").strip()) is not None


def _text(path: Path) -> str:
    """Return a file's text; a process may end at any moment, so a missing file is empty."""
    try:
        return path.read_text()
    except OSError:
        return ""
