"""Processes told apart for good: a number alone may have been given to another one since."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Owner:
    """A process by its number, its start (clock ticks since boot) and the boot it is of."""

    pid: int
    start_ticks: int
    boot: str

    @classmethod
    def this(cls) -> Self:
        """Return the running process."""
        pid = os.getpid()
        start_ticks = _start_ticks(pid)
        assert start_ticks is not None
        return cls(pid, start_ticks, boot_id())

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read what str() wrote; None for anything else."""
        pid, _, rest = text.strip().partition(":")
        start_ticks, _, boot = rest.partition(":")
        if not (pid.isdecimal() and start_ticks.isdecimal() and boot):
            return None
        return cls(int(pid), int(start_ticks), boot)

    def __str__(self) -> str:
        return f"{self.pid}:{self.start_ticks}:{self.boot}"

    def alive(self) -> bool:
        """Say whether the very process still runs."""
        return self.boot == boot_id() and _start_ticks(self.pid) == self.start_ticks


def boot_id() -> str:
    """Return the kernel's name for this boot of the host."""
    return BOOT_ID.read_text("ascii").strip()


def end_process(pid: int, belongs: Callable[[int], bool], patience_s: float = 5.0) -> bool:
    """End a process if it is ours: ask, and after `patience_s` kill. Say whether it was.

    `belongs` is asked while a handle holds the process's number, so the one that is ended is the
    one that was asked about.
    """
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if not belongs(pid):
            return False
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, number)
            if select.select([handle], [], [], patience_s)[0]:
                break
        return True
    finally:
        os.close(handle)


def command_line(pid: int) -> str:
    """Return a process's arguments, NUL-separated; empty if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def mount_namespace(pid: int) -> str:
    """Return the name of a process's mount namespace; empty if it is gone."""
    try:
        return str(Path(f"/proc/{pid}/ns/mnt").readlink())
    except OSError:
        return ""


def _start_ticks(pid: int) -> int | None:
    """Read field 22 of /proc/PID/stat; None for a process that is gone or only a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("ascii", errors="replace")
    except OSError:
        return None
    # The name, field 2, may hold anything, even ") "; the state is field 3.
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])
