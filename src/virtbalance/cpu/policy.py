"""What a CPU policy is: the one interface behind which ours and a user's look the same."""

from typing import Any, Protocol

from virtbalance.model.cpu_estimate import CpuEstimate
from virtbalance.model.plan import CpuPlan


class CpuPolicy(Protocol):
    """Decides where vCPUs may run.

    A class with a ``name``, optionally a nested or assigned ``Config`` (a dataclass whose fields
    all have defaults), and ``decide``. ``decide`` is pure: what it wants to remember it returns
    as its state (``None`` at the first call), which the loop hands back at the next tick. It
    returns only what should change.
    """

    name: str

    def decide(
        self, state: Any, estimate: CpuEstimate, config: Any, now_s: float
    ) -> tuple[CpuPlan, Any]:
        """Return the plan for this tick and the state for the next."""
