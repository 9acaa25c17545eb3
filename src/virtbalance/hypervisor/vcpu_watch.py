"""Noticing a vCPU that is plugged in: libvirt has no event for it, but its thread can be seen.

The link count of a process's ``task`` folder is its number of threads, so one ``fstat`` says that
nothing came or went. Where something did, only threads not met before are looked at by name. I/O
threads come and go all the time, and a thread gets its name a moment after it was born, so a new
one is no stranger only once it has been looked at twice.
"""

import os
from collections.abc import Collection
from pathlib import Path

from virtbalance.hypervisor.processes import is_vcpu_thread


class VcpuWatch:
    """Watches one process for vCPU threads other than the known ones."""

    def __init__(self, pid: int, known: Collection[int], proc: Path) -> None:
        """Open the folder. OSError if the process is gone."""
        self._task = proc / str(pid) / "task"
        self._folder = os.open(self._task, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._known = frozenset(known)
        self._others: frozenset[int] = frozenset()
        self._young: frozenset[int] = frozenset()
        self._links = 0

    def sees_another(self) -> bool:
        """Whether there is a vCPU thread that is not among the known ones.

        OSError if the process is gone.
        """
        links = os.fstat(self._folder).st_nlink
        if links == self._links:
            return False
        there = frozenset(int(path.name) for path in self._task.iterdir()) - self._known
        strangers = there - self._others
        if any(is_vcpu_thread(self._task / str(thread_id)) for thread_id in strangers):
            return True
        young = strangers - self._young
        self._others, self._young = there - young, young
        if not young:
            self._links = links
        return False

    def close(self) -> None:
        """Close the folder."""
        os.close(self._folder)
