"""``pi``: a PI controller on the host's free memory, the same for every guest.

Every 5 s e = 0.20 - available / total, and every balloon shrinks by (0.5 e + 0.05 integral of e)
x maximum (or grows, where that is negative), the integral within [-1, 1], in steps of 128 MiB or
more. The floor is the larger of 33 % of the maximum and what the guest uses, until the host is 90
% used; then it is 33 %.
"""

from dataclasses import dataclass
from typing import Any

from virtbalance.bench.baselines.memory.sizes import MIB, clamp, due, plan
from virtbalance.model.memory_estimate import GuestMemoryEstimate, MemoryEstimate
from virtbalance.model.plan import MemoryPlan

_PERIOD_S = 5.0
_FREE_RATIO = 0.20
_PROPORTIONAL = 0.5
_INTEGRAL = 0.05
_STEP_KIB = 128 * MIB
_FLOOR_RATIO = 0.33
_FULL_RATIO = 0.90


@dataclass(frozen=True, slots=True)
class PiState:
    """The integral, and when to act next."""

    integral: float
    act_at_s: float


class Pi:
    """Controls the host and treats all guests alike."""

    name = "pi"

    def decide(
        self, state: PiState | None, estimate: MemoryEstimate, config: Any, now_s: float
    ) -> tuple[MemoryPlan, PiState]:
        """Act every 5 s."""
        del config
        state = state or PiState(0.0, now_s)
        if not due(now_s, state.act_at_s):
            return MemoryPlan(), state
        free_ratio = estimate.host.available_kib / estimate.host.total_kib
        error = _FREE_RATIO - free_ratio
        integral = clamp(state.integral + error * _PERIOD_S, -1.0, 1.0)
        shrink_ratio = _PROPORTIONAL * error + _INTEGRAL * integral
        full = free_ratio <= 1 - _FULL_RATIO
        sizes = {guest.uuid: _size(guest, shrink_ratio, full=full) for guest in estimate.guests}
        return plan(estimate, sizes, self.name), PiState(integral, now_s + _PERIOD_S)


def _size(guest: GuestMemoryEstimate, shrink_ratio: float, *, full: bool) -> int:
    floor_kib = _FLOOR_RATIO * guest.maximum_kib
    if not full:
        floor_kib = max(floor_kib, guest.used_kib)
    wanted_kib = guest.actual_kib - shrink_ratio * guest.maximum_kib
    size_kib = int(clamp(wanted_kib, floor_kib, guest.maximum_kib))
    return size_kib if abs(size_kib - guest.actual_kib) >= _STEP_KIB else guest.target_kib
