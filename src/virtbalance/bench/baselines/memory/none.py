"""``none``: balloons stay at their maximum."""

from typing import Any

from virtbalance.bench.baselines.memory.sizes import plan
from virtbalance.model.memory_estimate import MemoryEstimate
from virtbalance.model.plan import MemoryPlan


class FullBalloons:
    """Gives every guest all it may have, and the host the trouble."""

    name = "none"

    def decide(
        self, state: None, estimate: MemoryEstimate, config: Any, now_s: float
    ) -> tuple[MemoryPlan, None]:
        """Open all balloons that are not."""
        del config, now_s
        sizes = {guest.uuid: guest.maximum_kib for guest in estimate.guests}
        return plan(estimate, sizes, self.name), state
