"""What a vCPU has wanted lately, and since when: its level, and the noise around it.

A level is a run of demands that look alike. A two-sided CUSUM compares each new demand with the
level's mean in units of its spread: small departures leak away (the slack), lasting or large ones
add up until the limit, and then the old demands are dropped, not diluted (cpu.md, section 3).

Example: a level of 0.37 with the least spread of 0.04. A demand of 0.40 is 0.8 spreads away,
0.05 above the slack: nothing. A demand of 0.58 is 5.3 away: the first adds 4.5, the second
reaches the limit of 6, and the level begins anew with that second one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import mul

SLACK = 0.75
LIMIT = 6.0
"""Both in spreads; cpu.md, section 3."""
FIT = 3.0
"""In spreads: what a CUSUM has not had the time to judge is not taken for the level beyond this."""
LEAST_SPREAD_RATIO = 0.03
"""Below this, differences of demand mean nothing."""
PRIOR_SPREAD = 0.1
PRIOR_WEIGHT = 4
"""A young level is taken to scatter by a tenth of its mean, with the weight of four demands."""


@dataclass(frozen=True, slots=True)
class Level:
    """Demands that look alike, oldest first, and how far the newest drift from them."""

    demands: tuple[float, ...] = ()
    since_ns: int = 0
    above: float = 0.0
    below: float = 0.0


def extend(level: Level, demand: float, began_ns: int, keep: int) -> Level:
    """Return the level with one more demand, or a new level if it does not fit."""
    if not level.demands:
        return Level((demand,), began_ns)
    centre, deviation = mean(level.demands), spread(level.demands)
    step = (demand - centre) / max(deviation, LEAST_SPREAD_RATIO)
    above = max(0.0, level.above + step - SLACK)
    below = max(0.0, level.below - step - SLACK)
    if max(above, below) > LIMIT:
        return Level((demand,), began_ns)
    return Level((*level.demands, demand)[-keep:], level.since_ns, above, below)


def fits(level: Level, demand: float) -> bool:
    """Return whether a demand of this moment looks like the level; it may have just changed."""
    if not level.demands:
        return False
    deviation = max(spread(level.demands), LEAST_SPREAD_RATIO)
    return abs(demand - mean(level.demands)) <= FIT * deviation


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
