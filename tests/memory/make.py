"""Snapshots and estimates in one line, in MiB."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from virtbalance.memory.demand import DemandState, estimate
from virtbalance.memory.settings import DemandSettings
from virtbalance.model.guest import GuestDefinition, GuestSettings, GuestState
from virtbalance.model.hold import Hold
from virtbalance.model.memory_estimate import GuestMemoryEstimate, MemoryEstimate
from virtbalance.model.plan import DesiredSize, MemoryPlan, Reason
from virtbalance.model.reservation import Reservation
from virtbalance.model.snapshot import (
    Compartment,
    GuestSample,
    HostMemory,
    MemorySample,
    Snapshot,
)
from virtbalance.model.topology import flat_topology

MIB = 1024
START_S = 1000.0
KERNEL_MIB = 55
"""Kept from MemTotal by the guest's kernel."""


def sample(
    used: float,
    actual: float = 512,
    maximum: float = 2048,
    *,
    cache: float = 0,
    at_s: float = 1,
    autodeflate: bool = False,
    **other: Any,
) -> MemorySample:
    """Return what a well-behaved guest at rest reports; ``used`` includes its kernel's part."""
    total = (maximum if autodeflate else actual) - KERNEL_MIB
    made = MemorySample(
        maximum_kib=round(maximum * MIB),
        actual_kib=round(actual * MIB),
        available_kib=round(total * MIB),
        unused_kib=round((actual - used - cache) * MIB),
        usable_kib=round((actual - used) * MIB),
        swap_in_kib=0,
        swap_out_kib=0,
        major_faults=0,
        rss_kib=round(actual * MIB),
        last_update_s=round(1_800_000_000 + at_s),
    )
    return made._replace(**other)


def guest(
    memory: MemorySample | None,
    name: str = "g",
    *,
    settings: GuestSettings | None = None,
    definition: GuestDefinition | None = None,
    state: GuestState = GuestState.RUNNING,
    incarnation: str = "1",
) -> GuestSample:
    """Return a guest whose UUID is its name."""
    return GuestSample(
        uuid=name,
        name=name,
        incarnation=incarnation,
        state=state,
        settings=settings or GuestSettings(),
        definition=definition or GuestDefinition(stats_period_s=1),
        memory=memory,
    )


def snapshot(
    at_s: float,
    *guests: GuestSample,
    host_mib: float = 16384,
    available_mib: float = 8192,
    memory: HostMemory | None = None,
    compartments: tuple[Compartment, ...] = (),
) -> Snapshot:
    """Return what is seen ``at_s`` seconds after the start."""
    host = memory or HostMemory(round(host_mib * MIB), round(available_mib * MIB))
    taken_ns = round((START_S + at_s) * 1e9)
    return Snapshot(
        taken_ns,
        1.8e9 + at_s,
        flat_topology(2),
        guests,
        memory=host,
        compartments=compartments,
    )


@dataclass
class Watcher:
    """Runs the estimator over snapshots."""

    settings: DemandSettings = field(default_factory=DemandSettings)
    targets: dict[str, int] = field(default_factory=dict)
    holds: Mapping[str, Hold] = field(default_factory=dict)
    reservations: Sequence[Reservation] = ()
    state: DemandState | None = None
    last: MemoryEstimate | None = None

    def see(self, at_s: float, *guests: GuestSample, **host: Any) -> GuestMemoryEstimate:
        """Take in a snapshot; return what is believed of its first guest."""
        return self.whole(at_s, *guests, **host).guests[0]

    def whole(self, at_s: float, *guests: GuestSample, **host: Any) -> MemoryEstimate:
        """Take in a snapshot; return all that is believed."""
        self.last, self.state = estimate(
            self.state,
            snapshot(at_s, *guests, **host),
            self.targets,
            self.holds,
            self.settings,
            self.reservations,
        )
        return self.last


def believed(
    name: str = "g",
    *,
    used: float = 300,
    actual: float = 512,
    target: float | None = None,
    maximum: float = 2048,
    minimum: float = 256,
    hard: float | None = None,
    soft: float | None = None,
    **other: Any,
) -> GuestMemoryEstimate:
    """Return an estimate of one guest."""
    hard = used + 100 if hard is None else hard
    soft = max(hard, used + 128) if soft is None else soft
    made = GuestMemoryEstimate(
        uuid=name,
        guest_name=name,
        maximum_kib=round(maximum * MIB),
        minimum_kib=round(minimum * MIB),
        actual_kib=round(actual * MIB),
        target_kib=round((actual if target is None else target) * MIB),
        used_kib=round(used * MIB),
        usable_kib=round((actual - used) * MIB),
        unused_kib=round((actual - used) * MIB),
        slope_kib_s=0.0,
        peak_kib=round(used * MIB),
        pressure=False,
        hard_kib=round(hard * MIB),
        soft_kib=round(soft * MIB),
        cache_kib=round(max(hard, soft) * MIB),
    )
    return made._replace(**other)


def whole(
    *guests: GuestMemoryEstimate,
    budget: float = 8192,
    host: HostMemory | None = None,
    interval_s: float = 1.0,
) -> MemoryEstimate:
    """Return an estimate of a host of 16 GiB with plenty available, unless ``host`` says else."""
    return MemoryEstimate(
        host=host or HostMemory(16384 * MIB, 8192 * MIB),
        budget_kib=round(budget * MIB),
        reserve_kib=819 * MIB,
        other_kib=1024 * MIB,
        guests=tuple(sorted(guests, key=lambda g: g.uuid)),
        pool_kib=655 * MIB,
        interval_s=interval_s,
    )


def wishes(**sizes_mib: float) -> MemoryPlan:
    """Return a plan: guest name to size."""
    reason = Reason("test", "{guest} should be so", {"guest": "it"})
    return MemoryPlan(
        tuple(DesiredSize(name, round(mib * MIB), reason) for name, mib in sizes_mib.items())
    )
