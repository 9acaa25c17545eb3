"""Time as the loop sees it: the real clock here, a simulated one elsewhere."""

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """A monotonic clock for decisions, a wall clock for people, and a way to wait."""

    def now_ns(self) -> int:
        """Return monotonic time."""

    def wall_s(self) -> float:
        """Return seconds since 1970."""

    def sleep_until(self, deadline_ns: int, wake: threading.Event) -> None:
        """Return at the deadline, or earlier when ``wake`` is set."""


class SystemClock:
    """The machine's own clocks."""

    def now_ns(self) -> int:
        """Return ``CLOCK_MONOTONIC``."""
        return time.monotonic_ns()

    def wall_s(self) -> float:
        """Return seconds since 1970."""
        return time.time()

    def sleep_until(self, deadline_ns: int, wake: threading.Event) -> None:
        """Wait for ``wake`` until the deadline at most."""
        remaining_ns = deadline_ns - time.monotonic_ns()
        if remaining_ns > 0:
            wake.wait(remaining_ns / 1e9)
