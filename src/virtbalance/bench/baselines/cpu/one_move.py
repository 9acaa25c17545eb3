"""``one-move``: if busiest minus freest exceeds 10 points, the busiest's largest vCPU moves."""

from typing import Any

from virtbalance.bench.baselines.cpu.placement import current, loads, place_new, plan, uses
from virtbalance.model.cpu_estimate import CpuEstimate
from virtbalance.model.plan import CpuPlan

_GAP_RATIO = 0.10


class OneMove:
    """Moves one vCPU a period, but never a lone one."""

    name = "one-move"

    def decide(
        self, state: None, estimate: CpuEstimate, config: Any, now_s: float
    ) -> tuple[CpuPlan, None]:
        """Move the largest vCPU of the busiest pCPU to the freest."""
        del config, now_s
        placement = current(estimate)
        place_new(estimate, placement)
        load, used = loads(estimate, placement), uses(estimate)
        busiest = max(load, key=lambda cpu: (load[cpu], -cpu))
        freest = min(load, key=lambda cpu: (load[cpu], cpu))
        there = sorted(key for key, cpu in placement.items() if cpu == busiest)
        if load[busiest] - load[freest] > _GAP_RATIO and len(there) > 1:
            placement[max(there, key=lambda key: used[key])] = freest
        return plan(estimate, placement, self.name), state
