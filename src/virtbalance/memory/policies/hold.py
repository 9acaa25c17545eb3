"""The policy that wants nothing changed."""

from typing import Any

from virtbalance.model.memory_estimate import MemoryEstimate
from virtbalance.model.plan import MemoryPlan


class Hold:
    """Has no opinion on any guest's size."""

    name = "hold"

    def decide(
        self, state: Any, estimate: MemoryEstimate, config: Any, now_s: float
    ) -> tuple[MemoryPlan, Any]:
        """Return the empty plan."""
        del estimate, config, now_s
        return MemoryPlan(), state
