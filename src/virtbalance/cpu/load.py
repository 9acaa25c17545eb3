"""How loaded every pCPU is with the vCPUs that live there.

A vCPU that may run on one pCPU only counts there; one that may run on several counts on each of
them in proportion to what they can give. Loads are relative: 1.0 = all that the pCPU can give.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from virtbalance.model.cpu_estimate import CpuEstimate, VcpuEstimate
from virtbalance.model.guest import VcpuKey

GROSS_SHORTFALL_RATIO = 0.05
"""Demand that is not met though it could be; cpu.md, section 9."""
GROSS_SPREAD_RATIO = 0.25
"""Standard deviation of the loads relative to their mean; chosen well above the tolerance at which
a balanced host is left alone."""
GROSS_UNPLACED_RATIO = 1 / 3
"""vCPUs with no pCPU of their own; cpu.md, section 9."""


@dataclass(frozen=True, slots=True)
class Imbalance:
    """How far from even a host is."""

    shortfall_ratio: float
    """Demand above some pCPU's capacity that another could take, as a share of all demand."""
    spread_ratio: float
    """Standard deviation of the relative loads, as a share of their mean."""
    unplaced_ratio: float
    """Movable vCPUs that may run on several pCPUs, as a share of all."""

    @property
    def gross(self) -> bool:
        """Whether it is worth many changes at once."""
        return (
            self.shortfall_ratio > GROSS_SHORTFALL_RATIO
            or self.spread_ratio > GROSS_SPREAD_RATIO
            or self.unplaced_ratio > GROSS_UNPLACED_RATIO
        )


def loads(estimate: CpuEstimate, demand: Mapping[VcpuKey, float]) -> dict[int, float]:
    """Return the demand on every usable pCPU, in pCPUs."""
    by_mask: dict[frozenset[int], float] = defaultdict(float)
    for vcpu in estimate.vcpus:
        by_mask[vcpu.affinity] += demand[vcpu.key]
    total = dict.fromkeys(estimate.capacity, 0.0)
    for mask, wanted in by_mask.items():
        for cpu, share in _shares(mask, estimate).items():
            total[cpu] += wanted * share
    return total


def shared_over(vcpu: VcpuEstimate, estimate: CpuEstimate) -> dict[int, float]:
    """Return the usable CPUs it may run on now, and its share on each; empty if there is none."""
    return _shares(vcpu.affinity, estimate)


def _shares(mask: frozenset[int], estimate: CpuEstimate) -> dict[int, float]:
    cpus = sorted(cpu for cpu in mask if cpu in estimate.capacity)
    room = sum(estimate.capacity[cpu] for cpu in cpus)
    return {cpu: estimate.capacity[cpu] / room for cpu in cpus}


def imbalance(estimate: CpuEstimate) -> Imbalance:
    """Return how uneven the host is, by the demands as they were measured."""
    demand = {vcpu.key: vcpu.demand_ratio for vcpu in estimate.vcpus}
    total, capacity = loads(estimate, demand), estimate.capacity
    wanted, room = sum(total.values()), sum(capacity.values())
    over = sum(max(0.0, total[cpu] - capacity[cpu]) for cpu in capacity)
    avoidable = over - max(0.0, wanted - room)
    mean = wanted / room if room else 0.0
    squares = sum((total[cpu] / capacity[cpu] - mean) ** 2 for cpu in capacity)
    movable = [vcpu for vcpu in estimate.vcpus if vcpu.fixed is None]
    unplaced = sum(vcpu.home is None for vcpu in movable)
    return Imbalance(
        shortfall_ratio=avoidable / wanted if wanted else 0.0,
        spread_ratio=(squares / len(capacity)) ** 0.5 / mean if mean else 0.0,
        unplaced_ratio=unplaced / len(movable) if movable else 0.0,
    )
