"""What a plan promises: how well everybody would be served after it, against now.

Both placements are judged by the same entitlements, so the difference is the plan's alone. A pCPU
that carries more than it can give leaves the rest undelivered. A vCPU on several pCPUs is spread
over them; the kernel does that better the more of them it may use.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from virtbalance.cpu.fairness import entitlement
from virtbalance.cpu.load import loads
from virtbalance.model.cpu_estimate import CpuEstimate
from virtbalance.model.guest import VcpuKey
from virtbalance.model.plan import Action, Pin


@dataclass(frozen=True, slots=True)
class Service:
    """How everybody is served under one placement."""

    loads: Mapping[int, float]
    """Entitlement on every usable pCPU, in pCPUs."""
    owed: float
    """All entitlement, in pCPUs."""
    shortfall: float
    """What of it can't be delivered, in pCPUs."""
    spread_ratio: float
    """Standard deviation of the pCPUs' loads, each relative to what it can give."""

    @property
    def shortfall_ratio(self) -> float:
        """What can't be delivered as a share of all that is owed."""
        return self.shortfall / self.owed if self.owed else 0.0


@dataclass(frozen=True, slots=True)
class Promise:
    """Before and after."""

    before: Service
    after: Service


def promise(
    estimate: CpuEstimate, entitled: Mapping[VcpuKey, float], actions: Iterable[Action]
) -> Promise:
    """Return how everybody is served now, and would be after these actions."""
    return Promise(
        before=_service(estimate, entitled),
        after=_service(placed(estimate, actions), entitled),
    )


def entitlement_now(estimate: CpuEstimate) -> dict[VcpuKey, float]:
    """Return what every vCPU is owed by its demand as measured, in pCPUs."""
    return entitlement(estimate, {vcpu.key: vcpu.demand_ratio for vcpu in estimate.vcpus})


def placed(estimate: CpuEstimate, actions: Iterable[Action]) -> CpuEstimate:
    """Return the estimate with all pins carried out; of several for a vCPU the last one counts."""
    masks = {action.vcpu: action.cpus for action in actions if isinstance(action, Pin)}
    return replace(
        estimate,
        vcpus=tuple(
            replace(vcpu, affinity=masks[vcpu.key]) if vcpu.key in masks else vcpu
            for vcpu in estimate.vcpus
        ),
    )


def _service(estimate: CpuEstimate, entitled: Mapping[VcpuKey, float]) -> Service:
    total, capacity = loads(estimate, entitled), estimate.capacity
    relative = [total[cpu] / capacity[cpu] for cpu in capacity]
    mean = sum(relative) / len(relative) if relative else 0.0
    squares = sum((load - mean) ** 2 for load in relative)
    return Service(
        loads=total,
        owed=sum(entitled.values()),
        shortfall=sum(max(0.0, total[cpu] - capacity[cpu]) for cpu in capacity),
        spread_ratio=(squares / len(relative)) ** 0.5 if relative else 0.0,
    )
