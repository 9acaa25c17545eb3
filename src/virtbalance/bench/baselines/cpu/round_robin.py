"""``round-robin``: vCPUs in order of UUID over the pCPUs, once, and again on any change."""

from typing import Any

from virtbalance.bench.baselines.cpu.placement import movable, pcpus, plan
from virtbalance.model.cpu_estimate import CpuEstimate
from virtbalance.model.guest import VcpuKey
from virtbalance.model.plan import CpuPlan

Seen = tuple[tuple[VcpuKey, ...], tuple[int, ...]]


class RoundRobin:
    """Deals vCPUs out like cards."""

    name = "round-robin"

    def decide(
        self, state: Seen | None, estimate: CpuEstimate, config: Any, now_s: float
    ) -> tuple[CpuPlan, Seen]:
        """Deal if vCPUs or pCPUs are not those of the last time."""
        del config, now_s
        keys, cpus = tuple(vcpu.key for vcpu in movable(estimate)), tuple(pcpus(estimate))
        if state == (keys, cpus):
            return CpuPlan(), (keys, cpus)
        dealt = {key: cpus[number % len(cpus)] for number, key in enumerate(keys)}
        return plan(estimate, dealt, self.name), (keys, cpus)
