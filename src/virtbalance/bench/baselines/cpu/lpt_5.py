"""``lpt-5``: lpt, applied only if deviation / mean of the pCPUs' use exceeds 5 %."""

from typing import Any

from virtbalance.bench.baselines.cpu.lpt import from_scratch
from virtbalance.bench.baselines.cpu.placement import current, deviation, loads, mean, movable, plan
from virtbalance.model.cpu_estimate import CpuEstimate
from virtbalance.model.plan import CpuPlan

_UNEVEN_RATIO = 0.05


class Lpt5:
    """Places anew while the pCPUs are uneven, whether that helps or not."""

    name = "lpt-5"

    def decide(
        self, state: None, estimate: CpuEstimate, config: Any, now_s: float
    ) -> tuple[CpuPlan, None]:
        """Place everybody anew if somebody has no place yet or the pCPUs are uneven."""
        del config, now_s
        now = current(estimate)
        load = loads(estimate, now)
        even = deviation(load) <= _UNEVEN_RATIO * mean(load)
        if len(now) == len(movable(estimate)) and even:
            return CpuPlan(), state
        return plan(estimate, from_scratch(estimate), self.name), state
