"""How much memory a guest's programs want over time.

Curves are functions of the seconds since the guest started. ``Consume`` is a program that watches
its guest, as the workload of acceptance.md's memory cases does: its want depends on what it gets.
"""

from bisect import bisect_right
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

MIB = 1024
"""KiB in a MiB."""


class Want(Protocol):
    """A curve."""

    def kib(self, since_s: float, /) -> float:
        """Return what is wanted at this time."""


@dataclass(frozen=True, slots=True)
class Constant:
    """The same for ever."""

    size_kib: float

    def kib(self, _since_s: float, /) -> float:
        """Return the size."""
        return self.size_kib


@dataclass(frozen=True, slots=True)
class Ramp:
    """Growth at a rate from one size to another."""

    from_kib: float
    to_kib: float
    start_s: float
    rate_kib_s: float

    def kib(self, since_s: float, /) -> float:
        """Return where the ramp is."""
        grown = max(0.0, since_s - self.start_s) * self.rate_kib_s
        return min(self.to_kib, self.from_kib + grown)


@dataclass(frozen=True, slots=True)
class Steps:
    """Sizes, each from a time on; begins again after ``repeat_s``."""

    steps: tuple[tuple[float, float], ...]
    """Pairs of seconds and KiB, in order of time; the first at 0."""
    repeat_s: float | None = None

    def __post_init__(self) -> None:
        times = [at for at, _ in self.steps]
        if not times or times[0] != 0 or times != sorted(times):
            raise ValueError(f"steps must begin at 0 and be in order of time, got {times}")

    def kib(self, since_s: float, /) -> float:
        """Return the size of the step reached."""
        at_s = since_s if self.repeat_s is None else since_s % self.repeat_s
        return self.steps[bisect_right(self.steps, (at_s, float("inf"))) - 1][1]


@dataclass(frozen=True, slots=True)
class WantTrace:
    """Recorded sizes, one a step; begins again at its end."""

    values_kib: tuple[float, ...]
    step_s: float

    def kib(self, since_s: float, /) -> float:
        """Return the value of the step reached."""
        return self.values_kib[int(since_s / self.step_s) % len(self.values_kib)]


class Consumer(StrEnum):
    """How far a consuming program has come."""

    WAITING = "waiting"
    TAKING = "taking"
    LIMIT = "limit reached"
    """It took all its guest may ever have, freed it and ended: a success."""
    STOPPED = "stopped"
    """It took what it was told to take, freed it and ended."""
    DIED = "died early"
    """Its guest ran out of memory while the balloon could still have been opened."""


@dataclass(frozen=True, slots=True)
class Consume:
    """Takes memory at a rate to the guest's limit, or to ``stop_kib``, then frees it all and ends.

    It is at its limit when less than ``spare_kib`` is usable; with the balloon at 0.99 of the
    maximum or more that is the end it wants, otherwise it died early.
    """

    start_s: float = 0.0
    rate_kib_s: float = 16.0 * MIB
    stop_kib: float | None = None
    spare_kib: float = 48.0 * MIB


class ConsumeRun:
    """One run of a ``Consume`` program."""

    def __init__(self, program: Consume) -> None:
        self.taken_kib = 0.0
        self.state = Consumer.WAITING
        self._program = program

    def advance(self, since_s: float, dt_s: float, usable_kib: float, balloon_ratio: float) -> None:
        """Go on for ``dt_s``; ``usable_kib`` and ``balloon_ratio`` are what the guest has now."""
        if self.state is Consumer.WAITING and since_s >= self._program.start_s:
            self.state = Consumer.TAKING
        if self.state is not Consumer.TAKING:
            return
        if usable_kib < self._program.spare_kib:
            self._end(Consumer.LIMIT if balloon_ratio >= 0.99 else Consumer.DIED)
            return
        step_kib = self._program.rate_kib_s * dt_s
        # The program looks after every page: it stops just when the spare is reached.
        self.taken_kib += min(step_kib, usable_kib - self._program.spare_kib + 1.0)
        if self._program.stop_kib is not None and self.taken_kib >= self._program.stop_kib:
            self._end(Consumer.STOPPED)

    def kill(self) -> None:
        """Let the guest's out-of-memory killer end the program."""
        if self.state is Consumer.TAKING:
            self._end(Consumer.DIED)

    def _end(self, state: Consumer) -> None:
        self.state = state
        self.taken_kib = 0.0
