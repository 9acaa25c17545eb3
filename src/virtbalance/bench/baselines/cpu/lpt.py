"""``lpt``: longest processing time first onto the least loaded pCPU, from scratch every period."""

from typing import Any

from virtbalance.bench.baselines.cpu.placement import Placement, longest_first, movable, plan
from virtbalance.model.cpu_estimate import CpuEstimate
from virtbalance.model.plan import CpuPlan


class Lpt:
    """Evens well and keeps nothing in place."""

    name = "lpt"

    def decide(
        self, state: None, estimate: CpuEstimate, config: Any, now_s: float
    ) -> tuple[CpuPlan, None]:
        """Place everybody anew."""
        del config, now_s
        return plan(estimate, from_scratch(estimate), self.name), state


def from_scratch(estimate: CpuEstimate) -> Placement:
    """Return the placement by longest use first."""
    placement: Placement = {}
    longest_first(estimate, [vcpu.key for vcpu in movable(estimate)], placement)
    return placement
