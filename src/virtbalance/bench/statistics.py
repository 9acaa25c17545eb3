"""Over seeds: medians with bootstrap intervals, the same every time for the same values."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_DRAWS = 2000
_LOW, _HIGH = 2.5, 97.5


@dataclass(frozen=True, slots=True)
class Summary:
    """A median and its 95 % bootstrap interval."""

    median: float
    low: float
    high: float
    count: int


def summarize(values: Sequence[float | None]) -> Summary | None:
    """Return the summary of the values that are there; ``None`` if there are none."""
    known = np.array([value for value in values if value is not None], float)
    if not len(known):
        return None
    if len(known) == 1:
        return Summary(float(known[0]), float(known[0]), float(known[0]), 1)
    source = np.random.default_rng(0)
    draws = np.median(source.choice(known, (_DRAWS, len(known))), axis=1)
    low, high = np.percentile(draws, [_LOW, _HIGH])
    return Summary(float(np.median(known)), float(low), float(high), len(known))


def paired(mine: Sequence[float | None], theirs: Sequence[float | None]) -> Summary | None:
    """Return the summary of differences seed by seed, mine less theirs."""
    pairs = zip(mine, theirs, strict=True)
    return summarize([a - b for a, b in pairs if a is not None and b is not None])
