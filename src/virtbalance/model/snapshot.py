"""What was seen at one moment: counters of the host, of every guest and of every vCPU.

Counters only grow, except that a guest started anew begins again at zero; rates are formed by
the estimators. Monotonic times are of the clock the loop uses, wall times are seconds since 1970.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Flag, auto
from typing import NamedTuple

from virtbalance.model.guest import GuestDefinition, GuestSettings, GuestState
from virtbalance.model.topology import Topology


class Scope(Flag):
    """What a sample is to contain: the two programs look at different things."""

    CPU = auto()
    MEMORY = auto()


class VcpuSample(NamedTuple):
    """Counters of one vCPU thread. A tuple, because a large host has thousands at every look."""

    index: int  # type: ignore[assignment]  # hides a method that nobody needs here
    run_ns: int
    """Time on a CPU since the thread started."""
    wait_ns: int | None
    """Time runnable but waiting for a CPU; ``None``: the source does not tell."""
    read_ns: int
    """Monotonic time of this very read."""
    affinity: frozenset[int] | None
    """CPUs the thread may run on; ``None``: could not be read."""
    realtime: bool = False
    """Runs under a realtime scheduling class: not ours to move."""


class MemorySample(NamedTuple):
    """Memory of one guest: all but ``maximum``, ``actual`` and ``rss`` is the guest's own claim."""

    maximum_kib: int
    actual_kib: int
    """The balloon: memory the guest has now, whatever was asked for."""
    available_kib: int | None = None
    """MemTotal inside the guest."""
    unused_kib: int | None = None
    """MemFree inside the guest."""
    usable_kib: int | None = None
    """MemAvailable inside the guest."""
    swap_in_kib: int | None = None
    swap_out_kib: int | None = None
    major_faults: int | None = None
    rss_kib: int | None = None
    """Resident memory of the QEMU process."""
    last_update_s: int | None = None
    """Wall time at which the guest wrote its statistics; 0: never."""
    late: bool = False
    """The call did not answer in time: the values are those of its last answer."""


@dataclass(frozen=True, slots=True)
class GuestSample:
    """One guest as seen in this sample."""

    uuid: str
    name: str
    incarnation: str
    """Changes whenever the guest is started anew, so that old pins are never put on a new run."""
    state: GuestState = GuestState.RUNNING
    settings: GuestSettings = GuestSettings()
    definition: GuestDefinition = GuestDefinition()
    vcpus: tuple[VcpuSample, ...] = ()
    memory: MemorySample | None = None
    has_job: bool = False
    """It is being migrated, dumped or saved: libvirt lets nobody resize it meanwhile."""
    memory_by_node: Mapping[int, int] | None = None
    """KiB by NUMA node, seldom read and only on hosts with several nodes; ``None``: unknown."""


class PcpuSample(NamedTuple):
    """Counters of one host CPU, all work on it included."""

    id: int
    busy_ns: int
    """Only differences count: where a counter begins is its filling's affair."""
    steal_ns: int = 0
    """Time taken by a hypervisor below this host."""


@dataclass(frozen=True, slots=True)
class HostMemory:
    """The host's memory. Pressure figures are ``None`` where the kernel has no PSI."""

    total_kib: int
    available_kib: int
    """What can be had without swapping: free memory and caches that are given back on demand."""
    pressure_some_ratio: float | None = None
    """Share of the last 10 s in which some task waited for memory."""
    pressure_full_ratio: float | None = None
    ksm_shared_kib: int = 0


@dataclass(frozen=True, slots=True)
class Compartment:
    """A part of the host's memory that some guests can't leave: NUMA nodes, a limited group."""

    name: str
    total_kib: int
    available_kib: int
    guests: frozenset[str]
    """UUIDs of those who have no memory elsewhere."""


@dataclass(frozen=True, slots=True)
class HostFact:
    """Something about the host that its owner should know, said once."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything seen in one sample. Guests are sorted by UUID, vCPUs by index."""

    taken_ns: int
    wall_s: float
    topology: Topology
    guests: tuple[GuestSample, ...]
    pcpus: tuple[PcpuSample, ...] = ()
    memory: HostMemory | None = None
    compartments: tuple[Compartment, ...] = ()
    facts: tuple[HostFact, ...] = ()
