"""``lpt-10``: lpt, applied only if it lowers the deviation by more than 10 % of the mean."""

from typing import Any

from virtbalance.bench.baselines.cpu.lpt import from_scratch
from virtbalance.bench.baselines.cpu.placement import current, deviation, loads, mean, movable, plan
from virtbalance.model.cpu_estimate import CpuEstimate
from virtbalance.model.plan import CpuPlan

_GAIN_RATIO = 0.10


class Lpt10:
    """Places anew only where that pays."""

    name = "lpt-10"

    def decide(
        self, state: None, estimate: CpuEstimate, config: Any, now_s: float
    ) -> tuple[CpuPlan, None]:
        """Place everybody anew if somebody has no place yet or the pCPUs become more even."""
        del config, now_s
        now, new = current(estimate), from_scratch(estimate)
        load, new_load = loads(estimate, now), loads(estimate, new)
        gain = deviation(load) - deviation(new_load)
        if len(now) == len(movable(estimate)) and gain <= _GAIN_RATIO * mean(load):
            return CpuPlan(), state
        return plan(estimate, new, self.name), state
