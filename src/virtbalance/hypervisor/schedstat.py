"""Run time and run-queue wait of threads from /proc schedstat files held open.

A kept descriptor costs one ``pread`` a look, hundreds of times less than asking libvirt. It is
bound to the thread itself, not to its number: when the thread ends the read fails with ESRCH and
never shows another thread.
"""

import errno
import os
import resource
import time
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from virtbalance.model.snapshot import VcpuSample

_LINE_LIMIT = 64
_REALTIME_CLASSES = (os.SCHED_FIFO, os.SCHED_RR, 6)  # 6: SCHED_DEADLINE, which os does not name

_new = object.__new__
_set_index, _set_run_ns, _set_wait_ns, _set_read_ns, _set_affinity, _set_realtime = (
    getattr(VcpuSample, field.name).__set__ for field in fields(VcpuSample)
)


class GuestThreads:
    """The vCPU threads of one guest, held open."""

    def __init__(self, pid: int, threads: Mapping[int, int], proc: Path) -> None:
        """Open the schedstat file of each thread (vCPU index to thread id). OSError if one fails.

        A process may hold few files open by default (often 1024); the soft limit is raised to the
        hard one when it is met.
        """
        self.thread_ids = dict(threads)
        self.complete = True
        """Whether all threads were there at the last look: a vCPU may be unplugged."""
        self._rows: list[tuple[int, int, int, bool]] = []
        try:
            for index, thread_id in threads.items():
                path = proc / str(pid) / "task" / str(thread_id) / "schedstat"
                realtime = os.sched_getscheduler(thread_id) in _REALTIME_CLASSES
                self._rows.append((index, _open(path), thread_id, realtime))
        except OSError:
            self.close()
            raise

    def sample(self) -> tuple[VcpuSample, ...]:
        """Read every thread once, save those that have ended. ProcessLookupError if all have.

        A host may have thousands of vCPUs and is looked at ten times a second, so the records are
        filled slot by slot: the constructor of a frozen class takes as long as the read itself.
        """
        pread, affinity_of = os.pread, os.sched_getaffinity
        read_ns = time.monotonic_ns()
        samples = []
        for index, descriptor, thread_id, realtime in self._rows:
            try:
                run, wait, _slices = pread(descriptor, _LINE_LIMIT, 0).split()
                affinity = affinity_of(thread_id)
            except ProcessLookupError:
                continue
            sample = _new(VcpuSample)
            _set_index(sample, index)
            _set_run_ns(sample, int(run))
            _set_wait_ns(sample, int(wait))
            _set_read_ns(sample, read_ns)
            _set_affinity(sample, frozenset(affinity))
            _set_realtime(sample, realtime)
            samples.append(sample)
        self.complete = len(samples) == len(self._rows)
        if not samples:
            raise ProcessLookupError(errno.ESRCH, "all threads have ended")
        return tuple(samples)

    def close(self) -> None:
        """Close the descriptors."""
        for _index, descriptor, _thread_id, _realtime in self._rows:
            os.close(descriptor)
        self._rows.clear()


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
