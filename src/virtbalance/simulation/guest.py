"""Simulated guests as they are described: vCPUs with their work, memory with its balloon."""

from dataclasses import dataclass

from virtbalance.model.guest import USUAL_SHARES, GuestDefinition, GuestSettings
from virtbalance.simulation.want import MIB, Constant, Consume, Want
from virtbalance.simulation.workload import Workload, idle

_IDLE = idle()
_SMALL = Constant(100.0 * MIB)


@dataclass(frozen=True, slots=True)
class SimVcpu:
    """One vCPU thread."""

    workload: Workload = _IDLE
    affinity: frozenset[int] | None = None
    """CPUs it may run on at the start; ``None``: those of the definition, or all."""
    realtime: bool = False
    """Reported as such; it is scheduled like the others."""


@dataclass(frozen=True, slots=True)
class Balloon:
    """The driver inside the guest."""

    present: bool = True
    inflate_kib_s: float = 500.0 * MIB
    deflate_kib_s: float = 1000.0 * MIB
    granularity_kib: int = 1
    """It moves by whole multiples of this."""
    ready_after_s: float = 0.0
    """The guest boots: until then the balloon is at the maximum and there are no statistics."""
    stuck_s: tuple[tuple[float, float], ...] = ()
    """Times since the start, from and to, in which it does not move."""


@dataclass(frozen=True, slots=True)
class Lie:
    """False claims; ``None``: the truth."""

    usable_kib: int | None = None
    unused_kib: int | None = None
    swap_in_kib_s: float = 0.0
    major_faults_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Statistics:
    """What the guest tells about itself."""

    present: bool = True
    silent_s: tuple[tuple[float, float], ...] = ()
    """Times since the start, from and to, in which it writes no new statistics."""
    lie: Lie | None = None


@dataclass(frozen=True, slots=True)
class SimMemory:
    """Memory of one guest."""

    maximum_kib: int = 2048 * MIB
    balloon_kib: int | None = None
    """Size at the start; ``None``: the maximum."""
    want: Want = _SMALL
    program: Consume | None = None
    """Takes memory on top of ``want``."""
    cache_kib: float = 115.0 * MIB
    """Files it would like to keep in memory; they yield to everything else."""
    swap_kib: int = 0
    balloon: Balloon = Balloon()
    statistics: Statistics = Statistics()


@dataclass(frozen=True, slots=True)
class SimGuest:
    """One guest. Shares, quota and balloon features are those of its definition."""

    name: str
    vcpus: tuple[SimVcpu, ...] = (SimVcpu(),)
    memory: SimMemory | None = SimMemory()
    settings: GuestSettings = GuestSettings()
    definition: GuestDefinition = GuestDefinition(stats_period_s=1)
    uuid: str | None = None
    """``None``: made from the name and the seed."""
    memory_node: int | None = None
    """NUMA node where its memory is; ``None``: it is near everywhere."""

    @property
    def shares(self) -> float:
        """Weight in the kernel's eyes, 1 being libvirt's default of 1024 shares."""
        return (self.definition.cpu_shares or USUAL_SHARES) / USUAL_SHARES
