"""Run time and run-queue wait of threads from /proc schedstat files held open.

A kept descriptor costs one ``pread`` a look, hundreds of times less than asking libvirt. It is
bound to the thread itself, not to its number: when the thread ends the read fails with ESRCH and
never shows another thread.
"""

import errno
import functools
import os
import resource
import time
from collections.abc import Mapping, Sequence
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

from virtbalance.model.snapshot import VcpuSample

_LINE_LIMIT = 64
_REALTIME_CLASSES = (os.SCHED_FIFO, os.SCHED_RR, 6)  # 6: SCHED_DEADLINE, which os does not name

_new = tuple.__new__


class OpenThread(NamedTuple):
    """One vCPU thread with its schedstat file."""

    vcpu: int
    descriptor: int
    id: int
    realtime: bool


class Lineup:
    """Threads laid out in columns, to be read in bulk.

    A host may have thousands of vCPUs and is looked at ten times a second: line by line, parsing
    takes longer than reading, and guest by guest the calls do.
    """

    def __init__(self, threads: Sequence[OpenThread]) -> None:
        self._vcpus = [thread.vcpu for thread in threads]
        self._descriptors = [thread.descriptor for thread in threads]
        self._ids = [thread.id for thread in threads]
        self._realtime = [thread.realtime for thread in threads]
        self._affinities: list[set[int]] = []
        self._masks: list[frozenset[int]] = []

    def read(self) -> list[VcpuSample]:
        """Read every thread once. ProcessLookupError if one has ended."""
        pread, affinity_of = os.pread, os.sched_getaffinity
        read_ns = time.monotonic_ns()
        lines = [pread(descriptor, _LINE_LIMIT, 0) for descriptor in self._descriptors]
        affinities = [affinity_of(thread_id) for thread_id in self._ids]
        if affinities != self._affinities:
            self._affinities = affinities
            self._masks = [_shared(frozenset(affinity)) for affinity in affinities]
        figures = b"".join(lines).split()
        runs, waits = map(int, figures[::3]), map(int, figures[1::3])
        rows = zip(self._vcpus, runs, waits, repeat(read_ns), self._masks, self._realtime)
        return [_new(VcpuSample, row) for row in rows]


class GuestThreads:
    """The vCPU threads of one guest, held open."""

    def __init__(self, pid: int, threads: Mapping[int, int], proc: Path) -> None:
        """Open the schedstat file of each thread (vCPU index to thread id). OSError if one fails.

        A process may hold few files open by default (often 1024); the soft limit is raised to the
        hard one when it is met.
        """
        self.thread_ids = dict(threads)
        self.complete = True
        """Whether all threads are still there: a vCPU may be unplugged."""
        self.open: tuple[OpenThread, ...] = ()
        try:
            for vcpu, thread_id in threads.items():
                path = proc / str(pid) / "task" / str(thread_id) / "schedstat"
                realtime = _is_realtime(thread_id)
                self.open += (OpenThread(vcpu, _open(path), thread_id, realtime),)
        except OSError:
            self.close()
            raise
        self._lineup = Lineup(self.open)

    def sample(self) -> tuple[VcpuSample, ...]:
        """Read every thread once, save those that have ended. ProcessLookupError if all have."""
        try:
            return tuple(self._lineup.read())
        except ProcessLookupError:
            self._close_ended()
            return self.sample()

    def classes_changed(self) -> bool:
        """Look at the scheduling classes again, and say whether one has become another.

        OSError if a thread has ended.
        """
        realtime = [_is_realtime(thread.id) for thread in self.open]
        if realtime == [thread.realtime for thread in self.open]:
            return False
        pairs = zip(self.open, realtime, strict=True)
        self.open = tuple(thread._replace(realtime=is_now) for thread, is_now in pairs)
        self._lineup = Lineup(self.open)
        return True

    def close(self) -> None:
        """Close the descriptors."""
        for thread in self.open:
            os.close(thread.descriptor)
        self.open = ()

    def _close_ended(self) -> None:
        self.complete = False
        alive = tuple(thread for thread in self.open if _is_alive(thread))
        for thread in set(self.open) - set(alive):
            os.close(thread.descriptor)
        self.open = alive
        self._lineup = Lineup(alive)
        if not alive:
            raise ProcessLookupError(errno.ESRCH, "all threads have ended")


def _is_realtime(thread_id: int) -> bool:
    return os.sched_getscheduler(thread_id) in _REALTIME_CLASSES


def _is_alive(thread: OpenThread) -> bool:
    try:
        os.pread(thread.descriptor, _LINE_LIMIT, 0)
        os.sched_getaffinity(thread.id)
    except ProcessLookupError:
        return False
    return True


@functools.lru_cache(maxsize=1024)
def _shared(mask: frozenset[int]) -> frozenset[int]:
    """Return the one object that stands for this mask: on wide hosts it takes kilobytes."""
    return mask


def read_run_ns(pid: int, thread_id: int, proc: Path) -> int | None:
    """Return the run time of one thread, once; ``None`` if it or its schedstat is not there."""
    try:
        return int((proc / str(pid) / "task" / str(thread_id) / "schedstat").read_text().split()[0])
    except (OSError, IndexError, ValueError):
        return None


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft == hard:
            raise
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
