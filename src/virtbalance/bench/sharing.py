"""What everybody is entitled to: weighted max-min shares, and measures of how even shares are."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_ROUNDS = 300
_NEAR_ENOUGH = 1.002
"""A partition within this of its lower bound is not worth improving."""


def max_min(demand: Floats, weight: Floats, capacity: float) -> Floats:
    """Return min(demand, level x weight) with a level at which the shares use up the capacity.

    Everybody gets the demand where all of it fits. Weights are above 0.
    """
    if demand.sum() <= capacity:
        return demand.copy()
    order = np.argsort(demand / weight, kind="stable")
    wanted, heavy = demand[order], weight[order]
    before = np.concatenate(([0.0], np.cumsum(wanted)[:-1]))
    weight_left = np.cumsum(heavy[::-1])[::-1]
    levels = (capacity - before) / weight_left
    met = wanted / heavy <= levels
    count = int(np.argmin(met)) if not met.all() else len(wanted)
    level = levels[min(count, len(levels) - 1)]
    return np.asarray(np.minimum(demand, level * weight))


def entitled(
    demand: Floats, owners: npt.NDArray[np.int64], weight: Floats, capacity: float
) -> Floats:
    """Return each vCPU's share: between guests by weight, then inside each guest equally.

    ``owners`` is each vCPU's guest as an index into ``weight``. What a light vCPU leaves stays in
    its guest first.
    """
    if demand.sum() <= capacity:
        return demand.copy()
    by_guest = np.zeros(len(weight))
    np.add.at(by_guest, owners, demand)
    shares = max_min(by_guest, weight, capacity)
    result = demand.copy()
    for guest in np.flatnonzero(shares < by_guest):
        own = owners == guest
        result[own] = max_min(demand[own], np.ones(int(own.sum())), float(shares[guest]))
    return result


def filled(heights: Floats, amount: float) -> Floats:
    """Return the heights once so much has been poured onto the lowest, as water is."""
    order = np.sort(heights)
    levels = (amount + np.cumsum(order)) / np.arange(1, len(order) + 1)
    level = levels[np.flatnonzero(levels >= order)[-1]]
    return np.asarray(np.maximum(heights, level))


def jain(values: Floats) -> float:
    """Return Jain's index: 1 where all are equal, 1/n where one has everything."""
    if not len(values) or not np.any(values):
        return 1.0
    return float(values.sum() ** 2 / (len(values) * (values**2).sum()))


def best_partition(loads: Sequence[float], bins: int) -> float:
    """Return the smallest found highest sum when loads are put on so many bins.

    Longest first, then moves and swaps away from the highest bin while they help: the best there
    is for equal loads, and within a few percent of it otherwise.
    """
    contents: list[list[float]] = [[] for _ in range(bins)]
    for load in sorted(loads, reverse=True):
        min(contents, key=sum).append(load)
    bound = max(sum(loads) / bins, max(loads, default=0.0))
    for _ in range(_ROUNDS):
        if max(map(sum, contents)) <= _NEAR_ENOUGH * bound or not _improved(contents):
            break
    return max(map(sum, contents))


def _improved(contents: list[list[float]]) -> bool:
    """Make the first change that lowers the highest sum; return whether there was one."""
    top = max(contents, key=sum)
    height = sum(top)
    for other in contents:
        if other is top:
            continue
        for mine in top:
            for theirs in (0.0, *other):
                after = max(height - mine + theirs, sum(other) + mine - theirs)
                if after < height - 1e-9:
                    top.remove(mine)
                    other.append(mine)
                    if theirs:
                        other.remove(theirs)
                        top.append(theirs)
                    return True
    return False
