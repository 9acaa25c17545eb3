"""``proxmox``: Proxmox VE's auto-ballooning (algorithm 1), which keeps the host 80 % full.

Every 10 s goal = 0.80 total - used of the host; nothing is done within 10 MiB. Rich is a guest
with more than 25 % of its minimum unused and a balloon at its minimum or more, poor are the
others. Giving goes to the poor, or to all if that makes no progress; taking from the rich, or
from all. Over those chosen

    surplus = sum(balloon - minimum) + goal
    desired = minimum + surplus x shares / sum(shares), within [minimum, maximum]

moved by at most 100 MiB; what is left over goes another round without those that did not move.
"""

from collections.abc import Sequence
from typing import Any

from virtbalance.bench.baselines.memory.sizes import MIB, clamp, due, plan
from virtbalance.model.memory_estimate import GuestMemoryEstimate, MemoryEstimate
from virtbalance.model.plan import MemoryPlan

_PERIOD_S = 10.0
_FILL_RATIO = 0.80
_BAND_KIB = 10 * MIB
_STEP_KIB = 100 * MIB
_RICH_RATIO = 0.25
_SHARES = 1000


class Proxmox:
    """Divides what the host has or lacks by shares."""

    name = "proxmox"

    def decide(
        self, state: float | None, estimate: MemoryEstimate, config: Any, now_s: float
    ) -> tuple[MemoryPlan, float]:
        """Act every 10 s. The state is when to act next."""
        del config
        if state is not None and not due(now_s, state):
            return MemoryPlan(), state
        host = estimate.host
        goal_kib = int(_FILL_RATIO * host.total_kib) - (host.total_kib - host.available_kib)
        return plan(estimate, _sizes(estimate, goal_kib), self.name), now_s + _PERIOD_S


def _sizes(estimate: MemoryEstimate, goal_kib: int) -> dict[str, int]:
    """Return new sizes of those that move."""
    if abs(goal_kib) <= _BAND_KIB:
        return {}
    guests = [guest for guest in estimate.guests if guest.weight > 0]
    first = [guest for guest in guests if _is_rich(guest) == (goal_kib < 0)]
    return _divided(first, goal_kib) or _divided(guests, goal_kib)


def _is_rich(guest: GuestMemoryEstimate) -> bool:
    enough = guest.unused_kib > _RICH_RATIO * guest.minimum_kib
    return enough and guest.actual_kib >= guest.minimum_kib


def _divided(guests: Sequence[GuestMemoryEstimate], goal_kib: int) -> dict[str, int]:
    """Divide the goal in rounds; return who moved where to."""
    sizes = {guest.uuid: guest.actual_kib for guest in guests}
    left, moving = goal_kib, list(guests)
    while moving and left:
        surplus_kib = sum(sizes[guest.uuid] - guest.minimum_kib for guest in moving) + left
        shares = sum(guest.weight * _SHARES for guest in moving)
        moved = []
        for guest in moving:
            part_kib = int(surplus_kib * guest.weight * _SHARES // shares)
            size_kib = _stepped(guest, guest.minimum_kib + part_kib)
            change_kib = size_kib - sizes[guest.uuid]
            if change_kib * goal_kib > 0:
                change_kib = max(change_kib, left) if left < 0 else min(change_kib, left)
                sizes[guest.uuid] += change_kib
                left -= change_kib
                moved += [guest] if change_kib else []
        moving = moved
    return {g.uuid: sizes[g.uuid] for g in guests if sizes[g.uuid] != g.actual_kib}


def _stepped(guest: GuestMemoryEstimate, desired_kib: int) -> int:
    within_kib = clamp(desired_kib, guest.minimum_kib, guest.maximum_kib)
    low_kib, high_kib = guest.actual_kib - _STEP_KIB, guest.actual_kib + _STEP_KIB
    return int(clamp(within_kib, low_kib, high_kib))
