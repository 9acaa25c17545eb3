"""What a memory policy is: the one interface behind which ours and a user's look the same."""

from typing import Any, Protocol

from virtbalance.model.memory_estimate import MemoryEstimate
from virtbalance.model.plan import MemoryPlan


class MemoryPolicy(Protocol):
    """Says what size each guest should have in the end; steps, order and floors are the guard's.

    A class with a ``name``, optionally a ``Config`` (a dataclass whose fields all have defaults),
    and ``decide``, which is pure: what it wants to remember it returns as its state (``None`` at
    the first call).
    """

    name: str

    def decide(
        self, state: Any, estimate: MemoryEstimate, config: Any, now_s: float
    ) -> tuple[MemoryPlan, Any]:
        """Return the plan for this tick and the state for the next."""
