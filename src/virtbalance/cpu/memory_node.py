"""Where a guest's memory lies, in a word: the node its vCPUs should be on.

More than half of the memory on one node makes it that guest's node. Where the host does not tell,
the owner may have: a strict ``numatune`` with a single node leaves no doubt either. Memory that is
spread over several nodes, or on one without usable CPUs, speaks for no node.
"""

from virtbalance.model.snapshot import GuestSample
from virtbalance.model.topology import Topology

MOST_RATIO = 0.5


def memory_node(guest: GuestSample, topology: Topology) -> int | None:
    """Return the node that holds most of a guest's memory; ``None``: unknown, or there is none."""
    if len(topology.nodes) < 2:
        return None
    node = _fullest(guest)
    return node if node in topology.usable_nodes else None


def _fullest(guest: GuestSample) -> int | None:
    memory, bound = guest.memory_by_node, guest.definition.memory_nodes
    total = sum(memory.values()) if memory else 0
    if memory and total:
        node = max(sorted(memory), key=memory.__getitem__)
        return node if memory[node] > MOST_RATIO * total else None
    return min(bound) if bound is not None and len(bound) == 1 else None
