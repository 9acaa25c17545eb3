"""What a load costs a core: entitlement that is not delivered, and headroom that is used up.

For a pCPU that carries L and can give C (cpu.md, section 6)

    strain = max(0, L - C) + 0.10 x L^2 / C

The first term counts what somebody is owed and does not get; the second grows with the load, so of
two placements that deliver everything the more even one is better. SMT threads share a core: beside
a sibling that is busy all the time a thread gives ``SHARED_CORE_RATIO`` of what it gives alone.

Example: loads 1.11 and 0.37 on two whole pCPUs strain them 0.11 + 0.123 and 0.014; 0.74 on each
0.055 twice: evening out is worth 0.138.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

HEADROOM = 0.10
"""Weight of the second term; cpu.md, section 6."""
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
    total: Array = (np.maximum(0.0, loads - room) + HEADROOM * loads * loads / room).sum(axis=-2)
    return total
