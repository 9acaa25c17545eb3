"""``none``: no pinning; the kernel balances. Pins found at the start are cleared once."""

from typing import Any

from virtbalance.bench.baselines.cpu.placement import movable
from virtbalance.model.cpu_estimate import CpuEstimate
from virtbalance.model.guest import VcpuKey
from virtbalance.model.plan import CpuPlan, Pin, Reason


class NoPins:
    """Lets every vCPU run wherever it may."""

    name = "none"

    def decide(
        self, state: frozenset[VcpuKey] | None, estimate: CpuEstimate, config: Any, now_s: float
    ) -> tuple[CpuPlan, frozenset[VcpuKey]]:
        """Clear the pins of vCPUs not seen before."""
        del config, now_s
        reason = Reason("none", "may run anywhere")
        pins = tuple(
            Pin(vcpu.key, vcpu.allowed, reason)
            for vcpu in movable(estimate)
            if vcpu.key not in (state or ()) and vcpu.affinity != vcpu.allowed
        )
        return CpuPlan(pins), frozenset(vcpu.key for vcpu in estimate.vcpus)
