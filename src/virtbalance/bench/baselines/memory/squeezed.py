"""``squeezed``: XenServer's daemon; everybody gets the same fraction between minimum and maximum.

Every 10 s, over the guests that are active,

    surplus = host free + sum of max(0, balloon - minimum) - host target
    g       = surplus / sum of (maximum - minimum), within [0, 1]
    target  = minimum + g x (maximum - minimum)

in two phases: if anybody must give, only the givers are set, and growth follows when they have
given. A guest that must move and does not for 5 s is inactive for this run, and the others give
more. The host target is the host's reserve; host free is counted as on Xen (``unallocated_kib``).
"""

from dataclasses import dataclass, replace
from typing import Any

from virtbalance.bench.baselines.memory.sizes import MIB, clamp, due, plan, unallocated_kib
from virtbalance.model.memory_estimate import GuestMemoryEstimate, MemoryEstimate
from virtbalance.model.plan import MemoryPlan

_PERIOD_S = 10.0
_STUCK_S = 5.0
_NEAR_KIB = 4 * MIB


@dataclass(frozen=True, slots=True)
class SqueezedState:
    """One run: who gives, and who has been seen not to."""

    next_run_s: float
    giving: frozenset[str] = frozenset()
    inactive: frozenset[str] = frozenset()
    seen: tuple[tuple[str, int, float], ...] = ()
    """By giver: its balloon, and since when it has that size."""


class Squeezed:
    """Divides by one fraction for all."""

    name = "squeezed"

    def decide(
        self, state: SqueezedState | None, estimate: MemoryEstimate, config: Any, now_s: float
    ) -> tuple[MemoryPlan, SqueezedState]:
        """Begin a run when it is time, or go on with the one that waits for its givers."""
        del config
        if state is None or due(now_s, state.next_run_s):
            state = SqueezedState(now_s + _PERIOD_S)
        elif not state.giving:
            return MemoryPlan(), state
        state = _watched(state, estimate, now_s)
        targets = _targets(estimate, state.inactive)
        givers = {
            guest.uuid: targets[guest.uuid]
            for guest in estimate.guests
            if targets.get(guest.uuid, guest.actual_kib) < guest.actual_kib - _NEAR_KIB
        }
        state = replace(state, giving=frozenset(givers))
        return plan(estimate, givers or targets, self.name), state


def _watched(state: SqueezedState, estimate: MemoryEstimate, now_s: float) -> SqueezedState:
    """Note since when each giver has its size, and who has had it for too long."""
    known = {uuid: (size, since) for uuid, size, since in state.seen}
    seen, inactive = [], set(state.inactive)
    for guest in estimate.guests:
        if guest.uuid not in state.giving:
            continue
        size_kib, since_s = known.get(guest.uuid, (guest.actual_kib, now_s))
        if size_kib != guest.actual_kib:
            since_s = now_s
        seen.append((guest.uuid, guest.actual_kib, since_s))
        if due(now_s, since_s + _STUCK_S):
            inactive.add(guest.uuid)
    return replace(state, seen=tuple(seen), inactive=frozenset(inactive))


def _targets(estimate: MemoryEstimate, inactive: frozenset[str]) -> dict[str, int]:
    active = [guest for guest in estimate.guests if guest.uuid not in inactive]
    surplus_kib = unallocated_kib(estimate) - estimate.reserve_kib
    surplus_kib += sum(max(0, guest.actual_kib - guest.minimum_kib) for guest in active)
    span_kib = sum(_span_kib(guest) for guest in active)
    fraction = clamp(surplus_kib / span_kib, 0.0, 1.0) if span_kib else 0.0
    return {guest.uuid: guest.minimum_kib + int(fraction * _span_kib(guest)) for guest in active}


def _span_kib(guest: GuestMemoryEstimate) -> int:
    return guest.maximum_kib - guest.minimum_kib
