"""Over seeds: medians with bootstrap intervals, the same every time for the same values."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from virtbalance.bench.recording import Floats

_DRAWS = 2000
_LOW, _HIGH = 2.5, 97.5
_FEWEST_TO_ADJUST = 5


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


def adjusted(ratios: Sequence[float | None], nuisance: Sequence[float | None]) -> Summary | None:
    """Return the summary of ratios as they would be where another ratio, measured beside, is 1.

    Analysis of covariance: log ratio = a + b log nuisance + noise, b by least squares; what is
    summarized is exp(a + noise). The interval has b estimated anew in every draw. ``None`` below
    five pairs, and where a ratio is 0.
    """
    pairs = zip(ratios, nuisance, strict=True)
    known = np.array([(y, x) for y, x in pairs if y is not None and x is not None], float)
    if len(known) < _FEWEST_TO_ADJUST or not known.all():
        return None
    draws = np.random.default_rng(0).integers(len(known), size=(_DRAWS, len(known)))
    y, x = np.log(known).T
    (median,) = np.exp(_medians_adjusted(y[np.newaxis], x[np.newaxis]))
    low, high = np.exp(np.percentile(_medians_adjusted(y[draws], x[draws]), [_LOW, _HIGH]))
    return Summary(float(median), float(low), float(high), len(known))


def _medians_adjusted(y: Floats, x: Floats) -> Floats:
    """Return the median of y - b x for each row."""
    from_mean = x - x.mean(axis=1, keepdims=True)
    spread = (from_mean**2).sum(axis=1)
    slope = (from_mean * y).sum(axis=1) / np.where(spread > 0, spread, np.inf)
    return np.asarray(np.median(y - slope[:, np.newaxis] * x, axis=1))
