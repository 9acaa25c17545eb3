"""What a vCPU thread wants to do: descriptions that both CPU models play.

Every workload is a sequence of pieces, and a piece is one of two steady loads:

- **closed**: work, think, repeat. The next work begins when the last is done, so a thread that is
  made to wait asks for less. ``duty`` is the share of a pCPU it uses when nothing is in its way;
  1 is a hog.
- **open**: work arrives whether or not the last is done; what can't be done at once queues up
  inside the guest. ``rate`` is the work that arrives, in pCPUs; 0 is idle.

Work is counted in seconds of a pCPU of speed 1. Times are seconds of the simulated host.
Not modelled: guests that wait for each other, locks, disks, networks.
"""

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from virtbalance.simulation.errors import ImpossibleStateError
from virtbalance.simulation.streams import Streams


class Spread(StrEnum):
    """How lengths of work and thought vary around their mean."""

    FIXED = "fixed"
    EXPONENTIAL = "exponential"
    LOGNORMAL = "lognormal"
    """Standard deviation equal to the mean, as the exponential has, with a heavier tail."""

    def draw(self, mean: float, source: random.Random) -> float:
        """Return one length with this mean."""
        if self is Spread.FIXED:
            return mean
        if self is Spread.EXPONENTIAL:
            return source.expovariate(1.0) * mean
        return source.lognormvariate(-_LOGNORMAL_VARIANCE / 2, _LOGNORMAL_VARIANCE**0.5) * mean


_LOGNORMAL_VARIANCE = 0.6931471805599453  # ln 2: the coefficient of variation is then 1


@dataclass(frozen=True, slots=True)
class Closed:
    """Work, think, repeat."""

    duty: float
    work_s: float = 0.01
    spread: Spread = Spread.FIXED

    def __post_init__(self) -> None:
        if not 0 < self.duty <= 1 or self.work_s <= 0:
            raise ValueError(f"duty in (0, 1] and work_s above 0 are needed, got {self}")

    @property
    def think_s(self) -> float:
        """Mean pause between two pieces of work."""
        return self.work_s * (1 - self.duty) / self.duty

    @property
    def demand_ratio(self) -> float:
        """What it uses of a free pCPU of speed 1."""
        return self.duty


@dataclass(frozen=True, slots=True)
class Open:
    """Work that arrives by itself; rates above 1 can never be served by one vCPU."""

    rate: float
    work_s: float = 0.01
    spread: Spread = Spread.EXPONENTIAL

    def __post_init__(self) -> None:
        if self.rate < 0 or self.work_s <= 0:
            raise ValueError(f"rate of 0 or more and work_s above 0 are needed, got {self}")

    @property
    def demand_ratio(self) -> float:
        """What it uses of a free pCPU of speed 1."""
        return min(1.0, self.rate)


_LONGEST_THOUGHT = 10.0
"""Of random thoughts, in means."""


def rest_of_thought_s(rest_s: float, former: Closed, load: Closed) -> float:
    """Return how long a loop still thinks that becomes another while it thinks."""
    share = max(0.0, rest_s) / max(former.think_s, 1e-9)
    return min(share, _LONGEST_THOUGHT) * load.think_s


Load = Closed | Open

IDLE = Open(0.0)
HOG = Closed(1.0)
FOREVER = float("inf")


@dataclass(frozen=True, slots=True)
class Piece:
    """A steady load until a time."""

    load: Load
    until_s: float = FOREVER


def reach(pieces: Iterator[Piece], now_s: float) -> Piece:
    """Return the piece that is going on at this time; earlier ones are used up."""
    for piece in pieces:
        if piece.until_s > now_s:
            return piece
    raise ImpossibleStateError("a workload ended: its last piece must have no end")


@dataclass(frozen=True, slots=True)
class Beginning:
    """When a thread started, and the chance it has."""

    started_s: float
    streams: Streams
    thread: str
    """Names the thread where random numbers are drawn."""


class Workload(Protocol):
    """Anything that can be told as a sequence of pieces."""

    def pieces(self, begin: Beginning, /) -> Iterator[Piece]:
        """Yield pieces without gaps from the start on; the last one has no end."""


@dataclass(frozen=True, slots=True)
class Steady:
    """The same load for ever."""

    load: Load = IDLE

    def pieces(self, _begin: Beginning, /) -> Iterator[Piece]:
        """Yield the one piece."""
        yield Piece(self.load)


def idle() -> Steady:
    """Return a vCPU that does nothing."""
    return Steady(IDLE)


def hog() -> Steady:
    """Return a vCPU that takes all it can get."""
    return Steady(HOG)


def loop(duty: float, work_s: float = 0.01, spread: Spread = Spread.FIXED) -> Steady:
    """Return a closed loop with this duty."""
    return Steady(Closed(duty, work_s, spread))


def arrivals(rate: float, work_s: float = 0.01, spread: Spread = Spread.EXPONENTIAL) -> Steady:
    """Return open arrivals at this rate."""
    return Steady(Open(rate, work_s, spread))


@dataclass(frozen=True, slots=True)
class Phase:
    """A load for so many seconds."""

    seconds: float
    load: Load


@dataclass(frozen=True, slots=True)
class Phases:
    """One load after another, from the thread's start; then again, or the last one for ever."""

    phases: tuple[Phase, ...]
    repeat: bool = False

    def pieces(self, begin: Beginning, /) -> Iterator[Piece]:
        """Yield the phases."""
        end_s = begin.started_s
        for phase in itertools.cycle(self.phases) if self.repeat else self.phases[:-1]:
            end_s += phase.seconds
            yield Piece(phase.load, end_s)
        yield Piece(self.phases[-1].load)


@dataclass(frozen=True, slots=True)
class Trace:
    """Recorded values, one a step, in pCPUs; begins again at its end."""

    values: tuple[float, ...]
    step_s: float
    open: bool = False
    """Values are work that arrives; otherwise duties of a closed loop (above 1: a hog)."""
    work_s: float = 0.01

    def pieces(self, begin: Beginning, /) -> Iterator[Piece]:
        """Yield one piece a value."""
        for number, value in enumerate(itertools.cycle(self.values), start=1):
            yield Piece(self._load(value), begin.started_s + number * self.step_s)

    def _load(self, value: float) -> Load:
        if value <= 0:
            return IDLE
        return Open(value, self.work_s) if self.open else Closed(min(value, 1.0), self.work_s)


def scattered(mean: float, deviation: float, source: random.Random) -> float:
    """Return a duty, normally distributed around a mean.

    What would lie outside 0 to 1 is cut off, and as much on the other side: the mean stays.
    """
    room = min(mean, 1.0 - mean)
    return mean + min(room, max(-room, source.gauss(0.0, deviation)))


@dataclass(frozen=True, slots=True)
class Noise:
    """A duty drawn anew each step around a mean, see ``scattered``."""

    mean: float
    deviation: float
    step_s: float = 1.0
    open: bool = False
    work_s: float = 0.01

    def pieces(self, begin: Beginning, /) -> Iterator[Piece]:
        """Yield one piece a step."""
        source = begin.streams.stream("noise", begin.thread)
        for number in itertools.count(1):
            value = scattered(self.mean, self.deviation, source)
            load: Load = Closed(value, self.work_s) if value > 0 else IDLE
            if self.open:
                load = Open(value, self.work_s)
            yield Piece(load, begin.started_s + number * self.step_s)


@dataclass(frozen=True, slots=True)
class Bursts:
    """A load that comes and goes; vCPUs with the same ``group`` do so together."""

    on_s: float
    off_s: float
    load: Load = HOG
    spread: Spread = Spread.EXPONENTIAL
    group: str | None = None

    def pieces(self, begin: Beginning, /) -> Iterator[Piece]:
        """Yield on and off in turn; a group's bursts are counted from the host's start."""
        if self.group is None:
            source = begin.streams.stream("bursts", begin.thread)
            end_s = begin.started_s
        else:
            source = begin.streams.stream("bursts of group", self.group)
            end_s = 0.0
        while True:
            for load, mean_s in ((IDLE, self.off_s), (self.load, self.on_s)):
                end_s += max(1e-3, self.spread.draw(mean_s, source))
                yield Piece(load, end_s)
