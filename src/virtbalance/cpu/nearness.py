"""What distance costs: once for a move, and all the time for a vCPU far from its memory.

Costs are in seconds of a pCPU (cpu.md, section 8): the call itself and the cache that has to be
filled again. A vCPU whose guest's memory lies on another NUMA node needs a quarter more CPU time
for the same work, one away from the cache of its siblings a twentieth (cpu.md, section 6); that
counts only for guests that fit under one cache, the others have to straddle.
"""

from virtbalance.model.topology import Pcpu

SAME_CORE_S = 0.0005
SAME_CACHE_S = 0.004
OTHER_CACHE_S = 0.010
OTHER_NODE_S = 0.050

REMOTE_MEMORY_RATIO = 0.25
OTHER_CACHE_RATIO = 0.05


def move_cost_s(source: Pcpu, target: Pcpu) -> float:
    """Return what a move between two pCPUs costs, in CPU seconds."""
    if source.core == target.core:
        return SAME_CORE_S
    if source.llc == target.llc:
        return SAME_CACHE_S
    return OTHER_CACHE_S if source.node == target.node else OTHER_NODE_S
