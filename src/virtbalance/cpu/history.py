"""What a vCPU has wanted lately, and since when: its level, and the noise around it.

A level is a run of demands that look alike. A two-sided CUSUM compares each new demand with the
level's mean in units of its spread: small departures leak away (the slack), lasting or large ones
add up until the limit, and then the old demands are dropped, not diluted (cpu.md, section 3). What
has held for long is not given up for one outlier: there a single demand stops at the limit, however
far away it is, and it takes another to go beyond.

How much a vCPU jitters from one demand to the next is remembered beyond a change, and a young
level is not taken to be calmer than that: else each outlier of a restless vCPU begins a new level.

Example: a calm level of 0.37 with the least spread of 0.03. A demand of 0.40 is one spread away,
less than the slack: nothing. A demand of 0.58 is 7 away: the first adds 5.5, the second passes the
limit of 6, and the level begins anew with that second one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import mul

SLACK = 1.5
LIMIT = 6.0
"""Both in spreads; cpu.md, section 3, has half of this slack, without the memory of jitter."""
ESTABLISHED = 12
"""A level of so many demands is not given up for one outlier: on recorded loads (PlanetLab at 0.85)
that halves the changes and takes a tenth of what is misplaced."""
FIT = 3.0
"""In spreads: what a CUSUM has not had the time to judge is not taken for the level beyond this."""
LEAST_SPREAD_RATIO = 0.03
"""Below this, differences of demand mean nothing."""
PRIOR_SPREAD = 0.1
PRIOR_WEIGHT = 4
"""A young level is taken to scatter by a tenth of its mean, with the weight of four demands."""
DIFFERENCE_SPREADS = 1.128
"""Mean difference of two draws from a normal distribution, in standard deviations."""
JITTER_DEMANDS = 12
"""Jitter is smoothed over about so many demands."""


@dataclass(frozen=True, slots=True)
class Level:
    """Demands that look alike, oldest first, and how far the newest drift from them."""

    demands: tuple[float, ...] = ()
    since_ns: int = 0
    above: float = 0.0
    below: float = 0.0
    jitter: float = 0.0
    """The spread that the differences of neighbouring demands speak of, smoothed."""
    mean: float = field(init=False, compare=False)
    """Of the demands; 0 while there are none."""
    deviation: float = field(init=False, compare=False)
    """The unit in which departures from the level are counted."""

    def __post_init__(self) -> None:
        # kept, because they are asked for several times at every look at every vCPU
        scatter = spread(self.demands) if self.demands else 0.0
        object.__setattr__(self, "mean", mean(self.demands) if self.demands else 0.0)
        object.__setattr__(self, "deviation", max(scatter, self.jitter, LEAST_SPREAD_RATIO))


def extend(level: Level, demand: float, began_ns: int, keep: int) -> Level:
    """Return the level with one more demand, or a new level if it does not fit."""
    if not level.demands:
        return Level((demand,), began_ns, jitter=level.jitter)
    step = (demand - level.mean) / level.deviation
    most = LIMIT if len(level.demands) >= ESTABLISHED else math.inf
    above = max(0.0, level.above + min(most, step - SLACK))
    below = max(0.0, level.below + min(most, -step - SLACK))
    difference = abs(demand - level.demands[-1]) / DIFFERENCE_SPREADS
    jitter = level.jitter + (difference - level.jitter) / JITTER_DEMANDS
    if max(above, below) > LIMIT:
        return Level((demand,), began_ns, jitter=jitter)
    return Level((*level.demands, demand)[-keep:], level.since_ns, above, below, jitter)


def fits(level: Level, demand: float) -> bool:
    """Return whether a demand of this moment looks like the level; it may have just changed."""
    if not level.demands:
        return False
    return abs(demand - level.mean) <= FIT * level.deviation


def mean(demands: Sequence[float]) -> float:
    """Return the mean; the sequence must not be empty."""
    return sum(demands) / len(demands)


def spread(demands: Sequence[float]) -> float:
    """Return the standard deviation, drawn towards the prior while there are few demands."""
    centre = mean(demands)
    prior = PRIOR_WEIGHT * (PRIOR_SPREAD * centre) ** 2
    # for every vCPU at every sample: the textbook sum of squares, at the speed of C
    squares = max(0.0, sum(map(mul, demands, demands)) - len(demands) * centre * centre)
    return math.sqrt((prior + squares) / (PRIOR_WEIGHT + len(demands)))
