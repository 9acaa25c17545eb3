"""``threshold`` and ``threshold-fixed``: the original program's rule, with and without its fault.

Each period the guest with most and the guest with least unused memory are looked at: starved is
the latter at 150 MiB or less, wasteful the former at 300 MiB or more. With S and W those unused
figures:

    both            the wasteful one gives W/2, the starved one gets it
    only starved    it gets 300 MiB
    only wasteful   it gives 300 MiB

The original adds and subtracts these from the unused figure instead of from the balloon, so that
a starving guest is shrunk to a few hundred MiB; it knows no limits either. ``threshold-fixed``
starts from the balloon and keeps between minimum and maximum.
"""

from typing import Any

from virtbalance.bench.baselines.memory.sizes import MIB, clamp, plan
from virtbalance.model.memory_estimate import GuestMemoryEstimate, MemoryEstimate
from virtbalance.model.plan import MemoryPlan

_STARVED_KIB = 150 * MIB
_WASTEFUL_KIB = 300 * MIB
_STEP_KIB = 300 * MIB

Changes = list[tuple[GuestMemoryEstimate, int]]


class Threshold:
    """Sets sizes counted from the unused figure, as the original does."""

    name = "threshold"

    def decide(
        self, state: None, estimate: MemoryEstimate, config: Any, now_s: float
    ) -> tuple[MemoryPlan, None]:
        """Look at the richest and the poorest guest."""
        del config, now_s
        sizes = {guest.uuid: guest.unused_kib + change for guest, change in _changes(estimate)}
        return plan(estimate, sizes, self.name), state


class ThresholdFixed:
    """Sets sizes counted from the balloon, within the limits."""

    name = "threshold-fixed"

    def decide(
        self, state: None, estimate: MemoryEstimate, config: Any, now_s: float
    ) -> tuple[MemoryPlan, None]:
        """Look at the richest and the poorest guest."""
        del config, now_s
        sizes = {
            guest.uuid: int(clamp(guest.actual_kib + change, guest.minimum_kib, guest.maximum_kib))
            for guest, change in _changes(estimate)
        }
        return plan(estimate, sizes, self.name), state


def _changes(estimate: MemoryEstimate) -> Changes:
    """Return who is to get or give how much."""
    if not estimate.guests:
        return []
    poorest = min(estimate.guests, key=lambda guest: (guest.unused_kib, guest.uuid))
    richest = max(estimate.guests, key=lambda guest: (guest.unused_kib, guest.uuid))
    starved = poorest.unused_kib <= _STARVED_KIB
    wasteful = richest.unused_kib >= _WASTEFUL_KIB
    if starved and wasteful:
        half_kib = richest.unused_kib // 2
        return [(richest, -half_kib), (poorest, half_kib)]
    if starved:
        return [(poorest, _STEP_KIB)]
    return [(richest, -_STEP_KIB)] if wasteful else []
