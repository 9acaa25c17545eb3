"""``qmemman``: Qubes OS's daemon; everybody gets memory in proportion to what he prefers.

Every second pref = 1.3 x used, within [200 MiB, maximum], and

    available = host free - 50 MiB - sum of (pref - balloon)

If that is above 0, target = pref + available x pref / sum(pref), times 0.999, and what a maximum
cuts off is spread again. Otherwise those 10 MiB or more above pref go down to pref, and what that
yields goes to the needy in proportion to pref. It acts only if free memory is 15 MiB under its 50
MiB reserve, or a guest below pref gains more than 15 MiB, or more than 150 MiB would move in all.
Givers come first: what growth the host can't feed yet follows when they have given. Host free is
counted as on Xen (``sizes.unallocated_kib``).
"""

from collections.abc import Mapping
from typing import Any

from virtbalance.bench.baselines.memory.sizes import MIB, clamp, due, plan, unallocated_kib
from virtbalance.model.memory_estimate import GuestMemoryEstimate, MemoryEstimate
from virtbalance.model.plan import MemoryPlan

_PERIOD_S = 1.0
_PREF_RATIO = 1.3
_PREF_KIB = 200 * MIB
_RESERVE_KIB = 50 * MIB
_KEEP_RATIO = 0.999
_GIVE_KIB = 10 * MIB
_SHORT_KIB = 15 * MIB
_GAIN_KIB = 15 * MIB
_MOVE_KIB = 150 * MIB


class Qmemman:
    """Spreads the whole host by preference."""

    name = "qmemman"

    def decide(
        self, state: float | None, estimate: MemoryEstimate, config: Any, now_s: float
    ) -> tuple[MemoryPlan, float]:
        """Act every second. The state is when to act next."""
        del config
        if state is not None and not due(now_s, state):
            return MemoryPlan(), state
        prefs = {guest.uuid: _pref_kib(guest) for guest in estimate.guests}
        spare_kib = unallocated_kib(estimate) - _RESERVE_KIB
        lack_kib = sum(prefs[guest.uuid] - guest.actual_kib for guest in estimate.guests)
        if spare_kib > lack_kib:
            targets = _spread(estimate, prefs, spare_kib - lack_kib)
        else:
            targets = _levelled(estimate, prefs, spare_kib)
        sizes = _affordable(estimate, targets, spare_kib)
        if not _matters(estimate, prefs, targets):
            sizes = {}
        return plan(estimate, sizes, self.name), now_s + _PERIOD_S


def _pref_kib(guest: GuestMemoryEstimate) -> float:
    return clamp(_PREF_RATIO * guest.used_kib, _PREF_KIB, guest.maximum_kib)


def _spread(
    estimate: MemoryEstimate, prefs: Mapping[str, float], available_kib: float
) -> dict[str, float]:
    """Give everybody his preference and a part of the rest; who is full leaves his part."""
    targets: dict[str, float] = {}
    open_guests = list(estimate.guests)
    while open_guests:
        total_kib = sum(prefs[guest.uuid] for guest in open_guests)
        grown = {
            g.uuid: _KEEP_RATIO * prefs[g.uuid] * (1 + available_kib / total_kib)
            for g in open_guests
        }
        full = [guest for guest in open_guests if grown[guest.uuid] >= guest.maximum_kib]
        if not full:
            return targets | grown
        for guest in full:
            targets[guest.uuid] = guest.maximum_kib
            available_kib -= guest.maximum_kib - prefs[guest.uuid]
        open_guests = [guest for guest in open_guests if guest not in full]
    return targets


def _levelled(
    estimate: MemoryEstimate, prefs: Mapping[str, float], spare_kib: float
) -> dict[str, float]:
    """Take what is above preference and give it to those below."""
    targets: dict[str, float] = {guest.uuid: guest.actual_kib for guest in estimate.guests}
    yielded_kib = max(0.0, spare_kib)
    for guest in estimate.guests:
        above_kib = guest.actual_kib - prefs[guest.uuid]
        if above_kib >= _GIVE_KIB:
            targets[guest.uuid] = prefs[guest.uuid]
            yielded_kib += above_kib
    needy = [guest for guest in estimate.guests if guest.actual_kib < prefs[guest.uuid]]
    total_kib = sum(prefs[guest.uuid] for guest in needy)
    for guest in needy:
        gain_kib = yielded_kib * prefs[guest.uuid] / total_kib
        targets[guest.uuid] = min(prefs[guest.uuid], guest.actual_kib + gain_kib)
    return targets


def _affordable(
    estimate: MemoryEstimate, targets: Mapping[str, float], spare_kib: float
) -> dict[str, int]:
    """Return whole sizes; growth gets what the host has free now, in proportion."""
    growth_kib = sum(max(0.0, targets[g.uuid] - g.actual_kib) for g in estimate.guests)
    part = clamp(max(0.0, spare_kib) / growth_kib, 0.0, 1.0) if growth_kib else 0.0
    sizes = {}
    for guest in estimate.guests:
        change_kib = targets[guest.uuid] - guest.actual_kib
        sizes[guest.uuid] = int(
            guest.actual_kib + (change_kib * part if change_kib > 0 else change_kib)
        )
    return sizes


def _matters(
    estimate: MemoryEstimate, prefs: Mapping[str, float], targets: Mapping[str, float]
) -> bool:
    if unallocated_kib(estimate) < _RESERVE_KIB - _SHORT_KIB:
        return True
    changes = {guest.uuid: targets[guest.uuid] - guest.actual_kib for guest in estimate.guests}
    needy_gain = any(
        changes[guest.uuid] > _GAIN_KIB and guest.actual_kib < prefs[guest.uuid]
        for guest in estimate.guests
    )
    return needy_gain or sum(map(abs, changes.values())) > _MOVE_KIB
