"""The host's CPUs: which share a core, a last-level cache, a NUMA node, and which may be used.

Identifiers are the kernel's CPU numbers. They may have holes, and a CPU may be offline: code
must never assume ``range(n)``. A core and a cache are named by the lowest CPU number in them,
which is stable and needs no second numbering.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Pcpu:
    """One logical CPU of the host."""

    id: int
    core: int
    """Lowest CPU number of its SMT siblings."""
    llc: int
    """Lowest CPU number that shares its last-level cache."""
    node: int
    """NUMA node."""
    online: bool = True
    isolated: bool = False
    """Taken out of the kernel's load balancing (``isolcpus``): never used unless asked for."""
    speed_ratio: float = 1.0
    """Capacity relative to the fastest CPU of the host, in (0, 1]."""

    @property
    def usable(self) -> bool:
        """Whether guests may be placed here."""
        return self.online and not self.isolated


@dataclass(frozen=True, slots=True)
class NumaNode:
    """One NUMA node of the host."""

    id: int
    memory_kib: int


@dataclass(frozen=True, slots=True)
class Topology:
    """All CPUs of the host, sorted by number, and its NUMA nodes."""

    pcpus: tuple[Pcpu, ...]
    nodes: tuple[NumaNode, ...] = ()
    map_length: int = 0
    """Length of libvirt's CPU map: one more than the highest possible CPU number."""
    by_id: Mapping[int, Pcpu] = field(init=False, repr=False, compare=False)
    usable: frozenset[int] = field(init=False, repr=False, compare=False)
    usable_nodes: frozenset[int] = field(init=False, repr=False, compare=False)
    """NUMA nodes with a usable CPU: others may hold memory, but no vCPU is near it."""

    def __post_init__(self) -> None:
        ids = [pcpu.id for pcpu in self.pcpus]
        if ids != sorted(set(ids)):
            raise ValueError(f"CPU numbers must be unique and sorted, got {ids}")
        if self.map_length <= max(ids, default=-1):
            object.__setattr__(self, "map_length", max(ids, default=-1) + 1)
        object.__setattr__(self, "by_id", MappingProxyType({p.id: p for p in self.pcpus}))
        object.__setattr__(self, "usable", frozenset(p.id for p in self.pcpus if p.usable))
        nodes = frozenset(pcpu.node for pcpu in self.pcpus if pcpu.usable)
        object.__setattr__(self, "usable_nodes", nodes)


def flat_topology(count: int) -> Topology:
    """Return ``count`` equal CPUs that share one cache and one node, for tests and simulations."""
    return Topology(tuple(Pcpu(id=i, core=i, llc=0, node=0) for i in range(count)))
