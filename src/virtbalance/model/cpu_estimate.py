"""What the CPU counters mean: how much each vCPU wants, not just what it got."""

from collections.abc import Mapping
from dataclasses import dataclass

from virtbalance.model.guest import VcpuKey
from virtbalance.model.topology import Topology


@dataclass(frozen=True, slots=True)
class VcpuEstimate:
    """One vCPU over the last window. Ratios are of one pCPU."""

    key: VcpuKey
    guest_name: str
    run_ratio: float
    wait_ratio: float | None
    """``None``: the source does not tell how long it waited."""
    demand_ratio: float
    """What it would use with a pCPU of its own, 0 to 1."""
    allowed: frozenset[int]
    """CPUs it may ever be placed on; never empty."""
    affinity: frozenset[int]
    """CPUs it may run on now."""
    weight: float = 1.0
    fixed: str | None = None
    """Why it must not be moved; ``None``: it may."""
    history: tuple[float, ...] = ()
    """Its demands since they last changed markedly, oldest first, in equal steps that end at the
    same moment for all vCPUs: the last entries of two vCPUs belong together. Moments when it was
    starved are left out."""
    steady_s: float = 0.0
    """How long that is."""
    settled: bool = True
    """Whether it has lasted long enough to be believed; else it may be a passing transient."""
    starved: bool = False
    """Whether it ran so little and waited so much that its demand is no more than a guess."""
    memory_node: int | None = None
    """NUMA node that holds most of its guest's memory; ``None``: unknown, or there is none."""

    @property
    def home(self) -> int | None:
        """The CPU it is pinned to, if it is exactly one."""
        return next(iter(self.affinity)) if len(self.affinity) == 1 else None


@dataclass(frozen=True, slots=True)
class CpuEstimate:
    """All vCPUs, sorted by key, and what each usable pCPU has left for guests."""

    window_s: float
    topology: Topology
    capacity: Mapping[int, float]
    """pCPU number to pCPUs it can give to guests; only usable CPUs appear."""
    vcpus: tuple[VcpuEstimate, ...]
