"""What a load costs a core: entitlement that is not delivered, and headroom that is used up.

For a pCPU that carries L and can give C (cpu.md, section 6, but for the rounding)

    strain = missing(L, C) + 0.10 x L^2 / C
    missing = o(L - C) - o(-C),  o(x) = (x + sqrt(x^2 + 4 x 0.06^2)) / 2

``missing`` is what somebody is owed and does not get: nothing far below C, L - C far above. The
corner between is round, since neither L nor C is known to a hundredth: beside a full pCPU another
one of 0.99 is no better. The second term grows with the load, so of two placements that deliver
everything the more even one is better. SMT threads share a core: beside a sibling that is busy all
the time a thread gives ``SHARED_CORE_RATIO`` of what it gives alone.

Example: loads 1.11 and 0.37 on two whole pCPUs strain them 0.133 + 0.123 and 0.002 + 0.014; 0.74 on
each 0.010 + 0.055 twice: evening out is worth 0.143.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

HEADROOM = 0.10
"""Weight of the second term; cpu.md, section 6."""
ROUNDING = 0.06
"""pCPUs that are missing where L is C. From 0.03 to 0.08 PlanetLab's 0.85 and the static 1.10 come
out alike, and real guests whose pCPUs are nearly full stay where they are; Bitbrains' 0.60 would be
better without (0.08 % misplaced instead of 1.98)."""
SHARED_CORE_RATIO = 0.62
"""What a thread gives beside a busy sibling: a full pair delivers 1.24 cores; cpu.md, section 4."""


def strain(loads: Array, capacity: Array) -> Array:
    """Return the strain of cores; ``loads`` is shaped (..., threads, samples).

    ``capacity`` is shaped (..., threads), without the last axis of ``loads``; a thread that does
    not exist has any capacity above 0 and no load. The result is shaped (..., samples).
    """
    room = capacity[..., None]
    if loads.shape[-2] > 1:
        siblings = np.minimum(1.0, loads.sum(axis=-2, keepdims=True) - loads)
        room = room * (1 - (1 - SHARED_CORE_RATIO) * siblings)
    missing = _over(loads - room) - _over(-room)
    total: Array = (missing + HEADROOM * loads * loads / room).sum(axis=-2)
    return total


def _over(excess: Array) -> Array:
    """Return the excess where it is above 0, else 0, with a round corner."""
    rounded: Array = (excess + np.sqrt(excess * excess + 4 * ROUNDING**2)) / 2
    return rounded
