"""``local``: a typical small daemon; each guest's usable memory near 256 MiB, and no host.

Every 10 s a guest with less than that by a step of 32 MiB or more gets a step, one with more by a
step or more gives one, between minimum and maximum.
"""

from typing import Any

from virtbalance.bench.baselines.memory.sizes import MIB, clamp, due, plan
from virtbalance.model.memory_estimate import GuestMemoryEstimate, MemoryEstimate
from virtbalance.model.plan import MemoryPlan

_PERIOD_S = 10.0
_USABLE_KIB = 256 * MIB
_STEP_KIB = 32 * MIB


class Local:
    """Looks at one guest at a time."""

    name = "local"

    def decide(
        self, state: float | None, estimate: MemoryEstimate, config: Any, now_s: float
    ) -> tuple[MemoryPlan, float]:
        """Act every 10 s. The state is when to act next."""
        del config
        if state is not None and not due(now_s, state):
            return MemoryPlan(), state
        sizes = {guest.uuid: _size(guest) for guest in estimate.guests}
        return plan(estimate, sizes, self.name), now_s + _PERIOD_S


def _size(guest: GuestMemoryEstimate) -> int:
    above_kib = guest.usable_kib - _USABLE_KIB
    if abs(above_kib) < _STEP_KIB:
        return guest.target_kib
    wanted_kib = guest.actual_kib - (_STEP_KIB if above_kib > 0 else -_STEP_KIB)
    return int(clamp(wanted_kib, guest.minimum_kib, guest.maximum_kib))
