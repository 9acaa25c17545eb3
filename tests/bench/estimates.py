"""Estimates in one line, for worked examples by hand."""

from collections.abc import Sequence

from virtbalance.model.cpu_estimate import CpuEstimate, VcpuEstimate
from virtbalance.model.guest import VcpuKey
from virtbalance.model.memory_estimate import GuestMemoryEstimate, MemoryEstimate
from virtbalance.model.plan import CpuPlan, MemoryPlan
from virtbalance.model.snapshot import HostMemory
from virtbalance.model.topology import flat_topology

MIB = 1024


def cpu(cpus: int, *vcpus: tuple[float, int | None]) -> CpuEstimate:
    """Return guests ``a``, ``b``, ... of one vCPU: use, and the pCPU it is pinned to."""
    return guests(cpus, *([vcpu] for vcpu in vcpus))


def guests(cpus: int, *described: Sequence[tuple[float, int | None]]) -> CpuEstimate:
    """Return guests ``a``, ``b``, ... of several vCPUs."""
    everywhere = frozenset(range(cpus))
    estimates = [
        VcpuEstimate(
            key=VcpuKey(chr(ord("a") + number), index),
            guest_name=chr(ord("a") + number),
            run_ratio=use,
            wait_ratio=0.0,
            demand_ratio=use,
            allowed=everywhere,
            affinity=everywhere if home is None else frozenset({home}),
        )
        for number, vcpus in enumerate(described)
        for index, (use, home) in enumerate(vcpus)
    ]
    capacity = dict.fromkeys(range(cpus), 1.0)
    return CpuEstimate(1.0, flat_topology(cpus), capacity, tuple(estimates))


def homes(plan: CpuPlan) -> dict[str, int]:
    """Return who is pinned where: ``a`` for vCPU 0 of guest a, ``a1`` for its vCPU 1."""
    return {
        pin.vcpu.uuid + (str(pin.vcpu.vcpu) if pin.vcpu.vcpu else ""): next(iter(pin.cpus))
        for pin in plan.pins
        if len(pin.cpus) == 1
    }


def memory(
    *described: GuestMemoryEstimate, total: int = 16384, free: int = 4096, reserve: int = 819
) -> MemoryEstimate:
    """Return a host in MiB on which all that balloons hold is touched: the rest is its own."""
    held = sum(guest.actual_kib for guest in described) // MIB
    return MemoryEstimate(
        host=HostMemory(total * MIB, free * MIB),
        budget_kib=0,
        reserve_kib=reserve * MIB,
        other_kib=(total - free - held) * MIB,
        guests=described,
    )


def guest(
    uuid: str,
    balloon: float,
    unused: float,
    *,
    maximum: int = 4096,
    minimum: int = 512,
    usable: float | None = None,
    used: float | None = None,
    weight: float = 1.0,
) -> GuestMemoryEstimate:
    """Return a guest in MiB."""
    usable = unused if usable is None else usable
    used = balloon - usable if used is None else used
    size_kib = round(balloon * MIB)
    return GuestMemoryEstimate(
        uuid=uuid,
        guest_name=uuid,
        maximum_kib=maximum * MIB,
        minimum_kib=minimum * MIB,
        actual_kib=size_kib,
        target_kib=size_kib,
        used_kib=round(used * MIB),
        usable_kib=round(usable * MIB),
        unused_kib=round(unused * MIB),
        slope_kib_s=0.0,
        peak_kib=round(used * MIB),
        pressure=False,
        hard_kib=0,
        soft_kib=0,
        cache_kib=0,
        weight=weight,
    )


def sizes(plan: MemoryPlan) -> dict[str, float]:
    """Return the sizes in MiB, in the plan's order."""
    return {size.uuid: round(size.size_kib / MIB, 1) for size in plan.sizes}
