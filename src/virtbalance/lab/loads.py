"""CPU loads a guest's program can run, one vCPU at a time (see guest/cpu.c)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Off:
    """Sleep."""

    def words(self) -> str:
        """Return the load as the program's command says it."""
        return "off"


@dataclass(frozen=True, slots=True)
class Hog:
    """Count without a pause."""

    def words(self) -> str:
        """Return the load as the program's command says it."""
        return "hog"


@dataclass(frozen=True, slots=True)
class Duty:
    """Count for a share of every period by the clock; `percent` 0 to 100.

    What the vCPU does not get in time is lost.
    """

    percent: float
    period_ms: float = 20.0

    def words(self) -> str:
        """Return the load as the program's command says it."""
        return f"duty {round(self.percent * 10_000)} {round(self.period_ms * 1000)}"


@dataclass(frozen=True, slots=True)
class CountAndSleep:
    """Count to `count`, sleep, for ever; the work waits until it is done."""

    count: int
    sleep_us: int = 400

    def words(self) -> str:
        """Return the load as the program's command says it."""
        return f"count {self.count} {self.sleep_us}"


@dataclass(frozen=True, slots=True)
class Burst:
    """Count for `busy_ms` by the clock, then sleep `idle_ms`."""

    busy_ms: float
    idle_ms: float

    def words(self) -> str:
        """Return the load as the program's command says it."""
        return f"burst {round(self.busy_ms * 1000)} {round(self.idle_ms * 1000)}"


CpuLoad = Off | Hog | Duty | CountAndSleep | Burst
