"""Who is on which pCPU, as the baselines see it: by use, with one pCPU for each vCPU."""

from collections.abc import Iterable, Mapping
from statistics import fmean, pstdev

from virtbalance.model.cpu_estimate import CpuEstimate, VcpuEstimate
from virtbalance.model.guest import VcpuKey
from virtbalance.model.plan import CpuPlan, Pin, Reason

Placement = dict[VcpuKey, int]
"""vCPU to pCPU; who is not pinned to exactly one is not in it."""


def pcpus(estimate: CpuEstimate) -> list[int]:
    """Return the pCPUs that can be used, in order of their numbers."""
    return sorted(estimate.capacity)


def movable(estimate: CpuEstimate) -> list[VcpuEstimate]:
    """Return the vCPUs that may be pinned, in order of their keys."""
    return [vcpu for vcpu in estimate.vcpus if vcpu.fixed is None]


def current(estimate: CpuEstimate) -> Placement:
    """Return where everybody is pinned now."""
    return {
        vcpu.key: vcpu.home
        for vcpu in movable(estimate)
        if vcpu.home is not None and vcpu.home in estimate.capacity
    }


def uses(estimate: CpuEstimate) -> dict[VcpuKey, float]:
    """Return what everybody used of a pCPU."""
    return {vcpu.key: vcpu.run_ratio for vcpu in movable(estimate)}


def loads(estimate: CpuEstimate, placement: Placement) -> dict[int, float]:
    """Return the summed use on each pCPU."""
    used = uses(estimate)
    load = dict.fromkeys(pcpus(estimate), 0.0)
    for key, cpu in placement.items():
        load[cpu] += used[key]
    return load


def longest_first(estimate: CpuEstimate, keys: Iterable[VcpuKey], placement: Placement) -> None:
    """Put each of these vCPUs, the busiest first, on what is then the least loaded pCPU."""
    used, load = uses(estimate), loads(estimate, placement)
    for key in sorted(keys, key=lambda key: (-used[key], key)):
        cpu = min(load, key=lambda cpu: (load[cpu], cpu))
        placement[key] = cpu
        load[cpu] += used[key]


def place_new(estimate: CpuEstimate, placement: Placement) -> None:
    """Put those who have no pCPU of their own on the least loaded ones."""
    keys = [vcpu.key for vcpu in movable(estimate) if vcpu.key not in placement]
    longest_first(estimate, keys, placement)


def deviation(load: Mapping[int, float]) -> float:
    """Return the population standard deviation of the pCPUs' use."""
    return pstdev(load.values())


def mean(load: Mapping[int, float]) -> float:
    """Return the mean of the pCPUs' use."""
    return fmean(load.values())


def plan(estimate: CpuEstimate, placement: Placement, rule: str) -> CpuPlan:
    """Return the pins that lead to this placement; who is there already is left alone."""
    now = current(estimate)
    pins = []
    for key, cpu in sorted(placement.items()):
        if now.get(key) != cpu:
            reason = Reason(rule, "{rule}: vCPU {vcpu} to {cpu}", _figures(rule, key, cpu))
            pins.append(Pin(key, frozenset({cpu}), reason))
    return CpuPlan(tuple(pins))


def _figures(rule: str, key: VcpuKey, cpu: int) -> dict[str, int | str]:
    return {"rule": rule, "vcpu": key.vcpu, "cpu": cpu}
