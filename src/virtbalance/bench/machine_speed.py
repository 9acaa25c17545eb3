"""How fast the machine itself is: a short loop, timed on one pCPU after the other.

A machine that is a guest itself, or whose cores have other users, changes its speed from one second
to the next, and with it what guests get done in a second of CPU time, wherever they were placed. A
thread visits every pCPU in turn and counts how often its loop comes round in a microsecond of *its
own* CPU time, so waiting for the pCPU does not count. The first part of a visit is not timed: it
warms up what a busy pCPU has warm already.

Example: a loop of 20,000 turns takes 400 us on pCPU 0 and 500 us on pCPU 1: 50 and 40 turns a
microsecond, so the machine's speed is 45.
"""

import contextlib
import os
import threading
import time
from collections import defaultdict
from statistics import fmean
from typing import Self

_VISIT_EVERY_S = 0.05
_WARM_UP_TURNS = 10_000
_TIMED_TURNS = 20_000


class SpeedProbe:
    """Measures while it is open; takes about 2 % of one pCPU."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen = defaultdict[int, list[float]](list)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._visit, name="speed-probe", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def take(self) -> float | None:
        """Return the mean since the last call, every pCPU counting alike, in turns a microsecond.

        ``None`` if no pCPU has been visited since.
        """
        with self._lock:
            seen = list(self._seen.values())
            self._seen.clear()
        return fmean(map(fmean, seen)) if seen else None

    def _visit(self) -> None:
        while True:
            for pcpu in sorted(os.sched_getaffinity(os.getpid())):
                if self._ended.wait(_VISIT_EVERY_S):
                    return
                with contextlib.suppress(OSError):  # the pCPU has gone offline
                    os.sched_setaffinity(threading.get_native_id(), {pcpu})
                    speed = _turns_per_us()
                    with self._lock:
                        self._seen[pcpu].append(speed)


def _turns_per_us() -> float:
    _go_round(_WARM_UP_TURNS)
    began_ns = time.thread_time_ns()
    _go_round(_TIMED_TURNS)
    return _TIMED_TURNS * 1e3 / (time.thread_time_ns() - began_ns)


def _go_round(turns: int) -> None:
    for _ in range(turns):
        pass
