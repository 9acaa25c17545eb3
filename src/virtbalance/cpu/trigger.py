"""When a change is worth it: the statistics of its gains, replayed over recorded samples.

The demands of the last seconds are played through twice, with the change and without. The gains of
the same moments belong together, so noise that both placements suffer cancels out. Accepted is a
change whose mean gain, less two standard errors, still pays for the move (cpu.md, section 10).
Nothing here asks how busy a pCPU is: on an idle host gains are tiny, under noise they scatter, and
a clear and lasting imbalance passes after three samples.

Example: gains 0.030, 0.024, 0.036: mean 0.030, standard error 0.0035. With only three samples
two errors count as four (Student's distribution): the gain is surely 0.016.
"""

import numpy as np

from virtbalance.cpu.strain import Array

LEAST_SAMPLES = 3
"""With fewer nothing is known; cpu.md, section 10, finds a real step after three or four."""
SPLIT_SAMPLES = 16
"""From so many on, changes are sought on the older half and tested on the newer: the best of many
fits the samples it was chosen by (cpu.md, section 10)."""
STUCK = 0.9
"""Autocorrelation counted at most: it is estimated from few samples."""


def halves(samples: int) -> tuple[slice, slice]:
    """Return which of so many samples serve the search, and which the test, oldest first."""
    if samples < SPLIT_SAMPLES:
        return slice(0, samples), slice(0, samples)
    return slice(0, samples // 2), slice(samples // 2, samples)


def lower_bound(gains: Array, errors: float) -> float:
    """Return the mean of consecutive gains less so many standard errors.

    Neighbouring samples resemble each other; n of them with autocorrelation a count as
    n (1 - a) / (1 + a) independent ones, at least two. Few samples know little of their own
    scatter either: ``errors`` of a normal distribution are widened to those of Student's.
    """
    count = len(gains)
    centred = gains - gains.mean()
    squares = float(centred @ centred)
    if squares <= 0:
        return float(gains.mean())
    alike = min(STUCK, max(0.0, float(centred[1:] @ centred[:-1]) / squares))
    independent = max(2.0, count * (1 - alike) / (1 + alike))
    error = float(np.sqrt(squares / (count - 1) / independent))
    return float(gains.mean()) - _student(errors, count - 1) * error


def _student(errors: float, freedom: int) -> float:
    """Return the quantile of Student's distribution (Cornish and Fisher's expansion)."""
    cube, fifth = errors**3, errors**5
    first = (cube + errors) / (4 * freedom)
    return errors + first + (5 * fifth + 16 * cube + 3 * errors) / (96 * freedom**2)
