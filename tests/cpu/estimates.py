"""Estimates in one line, for tests of policies and the guard."""

from dataclasses import replace

from virtbalance.model.cpu_estimate import CpuEstimate, VcpuEstimate
from virtbalance.model.guest import VcpuKey
from virtbalance.model.plan import CpuPlan
from virtbalance.model.topology import flat_topology


def vcpu(
    name: str,
    demand: float,
    home: int | set[int] | frozenset[int],
    *,
    index: int = 0,
    allowed: set[int] | None = None,
    fixed: str | None = None,
    settled: bool = True,
    run: float | None = None,
    weight: float = 1.0,
) -> VcpuEstimate:
    affinity = frozenset({home}) if isinstance(home, int) else frozenset(home)
    return VcpuEstimate(
        key=VcpuKey(name, index),
        guest_name=name,
        run_ratio=demand if run is None else run,
        wait_ratio=0.0,
        demand_ratio=demand,
        allowed=frozenset(allowed) if allowed is not None else frozenset(range(128)),
        affinity=affinity,
        weight=weight,
        fixed=fixed,
        history=(demand,) * 12,
        steady_s=6.0 if settled else 0.5,
        settled=settled,
    )


def estimate_of(
    pcpus: int, *vcpus: VcpuEstimate, capacity: dict[int, float] | None = None
) -> CpuEstimate:
    topology = flat_topology(pcpus)
    return CpuEstimate(
        window_s=1.0,
        topology=topology,
        capacity=capacity or dict.fromkeys(range(pcpus), 1.0),
        vcpus=tuple(sorted((_clipped(v, pcpus) for v in vcpus), key=lambda v: v.key)),
    )


def _clipped(vcpu: VcpuEstimate, pcpus: int) -> VcpuEstimate:
    return replace(vcpu, allowed=vcpu.allowed & frozenset(range(pcpus)))


def applied(estimate: CpuEstimate, plan: CpuPlan) -> CpuEstimate:
    """The same demands, with the plan carried out."""
    new = {pin.vcpu: pin.cpus for pin in plan.pins}
    return replace(
        estimate,
        vcpus=tuple(replace(v, affinity=new.get(v.key, v.affinity)) for v in estimate.vcpus),
    )
