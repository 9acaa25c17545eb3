"""Between a policy's wishes and the balloons: the same safety for every policy.

A policy says what size each guest should have in the end. The guard decides what is done about it
now: who gives how much (``shrink``), who gets how much (``grow``), and what is refused. Whatever
the policy says, and however often it changes its mind:

- what is committed, even if every balloon reached its target, stays within the budget, or does
  not rise while it is above; so it does in every compartment of the host's memory;
- nobody is taken below its minimum, nor below what it uses with head-room, nor raised above its
  maximum, and nothing is taken that is not usable;
- a guest whose size somebody else has set is not shrunk while it is held, but fed where urgent.

Amendments say what was not done and why. Their rules: ``nonsense``, ``fixed``, ``bounds``,
``hold``, ``new``, ``dead-band``, ``cool-down``, ``safe``, ``step``, ``free``, ``host``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from virtbalance.memory.allocation import Span, fill
from virtbalance.memory.grow import grow
from virtbalance.memory.host_state import HostState, HostWatch, watch_host
from virtbalance.memory.scene import Wish, amendment, mib, set_scene
from virtbalance.memory.settings import GuardSettings
from virtbalance.memory.shrink import Past, can_be_squeezed, safe_kib, shrink
from virtbalance.model.hold import Hold
from virtbalance.model.memory_estimate import GuestMemoryEstimate, MemoryEstimate
from virtbalance.model.plan import (
    Amendment,
    DesiredSize,
    MemoryPlan,
    Reason,
    Resize,
    Verdict,
)


@dataclass(frozen=True, slots=True)
class GuardState:
    """What the guard remembers between ticks."""

    host: HostWatch = field(default_factory=HostWatch)
    guests: Mapping[str, Past] = field(default_factory=dict)


def guard(
    state: GuardState | None,
    estimate: MemoryEstimate,
    plan: MemoryPlan,
    holds: Mapping[str, Hold],
    settings: GuardSettings,
    now_s: float,
) -> tuple[Verdict, GuardState]:
    """Turn wishes into the commands that are safe now; everything else becomes an amendment."""
    state = state or GuardState()
    host = watch_host(state.host, estimate, settings, now_s)
    wishes, refused = _admit(plan, estimate)
    wishes = [_reclaimed(wish, host.state) for wish in wishes]
    if host.state is HostState.RED:
        wishes = _borne_by_swap(wishes, estimate.budget_kib, settings)
    scene = set_scene(wishes, estimate, host.state, holds, settings, now_s)
    pasts = {g.uuid: _recalled(state.guests.get(g.uuid), g, now_s) for g in estimate.resizable}
    smaller = [wish for wish in wishes if wish.size_kib < wish.guest.target_kib]
    larger = [wish for wish in wishes if wish.size_kib > wish.guest.target_kib]
    shrunk = [
        shrink(wish, pasts[wish.guest.uuid], scene.around(wish.guest.uuid)) for wish in smaller
    ]
    grown = grow(larger, scene)
    done = [*shrunk, *grown]
    actions = [step for step in done if isinstance(step, Resize)]
    notes = [step for step in done if isinstance(step, Amendment)]
    verdict = Verdict((*_released(estimate, settings), *actions), (*refused, *notes))
    return verdict, GuardState(host, _remembered(pasts, wishes, actions, settings, now_s))


def _admit(plan: MemoryPlan, estimate: MemoryEstimate) -> tuple[list[Wish], list[Amendment]]:
    """Sort sense from nonsense, and bring sizes within each guest's bounds."""
    guests = {guest.uuid: guest for guest in estimate.guests}
    wishes: dict[str, Wish] = {}
    notes: list[Amendment] = []
    for desired in plan.sizes:
        guest = guests.get(desired.uuid)
        why = _nonsense(desired, guest, already=desired.uuid in wishes)
        if guest is None or why:
            reason = Reason("nonsense", "refused: {why}", {"why": why})
            notes.append(Amendment(str(desired.uuid), str(desired.size_kib), None, reason))
            continue
        asked = mib(desired.size_kib)
        if guest.fixed:
            notes.append(amendment(guest, asked, None, "fixed", guest.fixed))
            continue
        size_kib = min(max(desired.size_kib, guest.minimum_kib), guest.maximum_kib)
        if size_kib != desired.size_kib:
            why = "its minimum" if size_kib > desired.size_kib else "its maximum"
            notes.append(amendment(guest, asked, mib(size_kib), "bounds", why))
        wishes[guest.uuid] = Wish(guest, size_kib, desired.reason)
    return list(wishes.values()), notes


def _nonsense(
    desired: DesiredSize, guest: GuestMemoryEstimate | None, *, already: bool
) -> str | None:
    """Return what is wrong with an answer of the policy."""
    size: object = desired.size_kib
    if guest is None:
        return "there is no such guest"
    if already:
        return "a second size for the same guest"
    if not isinstance(size, int) or isinstance(size, bool):
        return "a size must be a whole number of KiB"
    return "a size can't be negative" if size < 0 else None


def _reclaimed(wish: Wish, state: HostState) -> Wish:
    """Lower a wish to what the host can bear: a host in need takes back what is not needed."""
    if state is HostState.RED:
        return wish._replace(size_kib=min(wish.size_kib, wish.guest.hard_kib))
    if state is HostState.ORANGE:
        return wish._replace(size_kib=min(wish.size_kib, wish.guest.soft_kib))
    return wish


def _borne_by_swap(wishes: Sequence[Wish], budget_kib: int, settings: GuardSettings) -> list[Wish]:
    """Have guests with swap give what others can't: a host in need can't wait for these.

    A guest without swap keeps what it uses, whatever is wished; what the whole exceeds the budget
    by for that is taken from those that just get slower by it, down to their minimum.
    """
    kept_kib = {wish.guest.uuid: _kept_kib(wish, settings) for wish in wishes}
    over_kib = min(
        sum(kept_kib[wish.guest.uuid] - wish.size_kib for wish in wishes),
        sum(kept_kib.values()) - budget_kib,
    )
    spans = [
        Span(w.guest.uuid, w.guest.weight, w.guest.minimum_kib, w.size_kib)
        for w in wishes
        if can_be_squeezed(w.guest)
    ]
    if over_kib <= 0 or not spans:
        return list(wishes)
    sizes_kib, _ = fill(spans, sum(span.high_kib for span in spans) - over_kib)
    return [w._replace(size_kib=sizes_kib.get(w.guest.uuid, w.size_kib)) for w in wishes]


def _kept_kib(wish: Wish, settings: GuardSettings) -> int:
    """Return what the guest will have once its wish is met as far as that is safe."""
    guest = wish.guest
    if can_be_squeezed(guest):
        return wish.size_kib
    least_kib = guest.target_kib if guest.growable_only else safe_kib(guest, settings)
    return max(wish.size_kib, min(guest.target_kib, least_kib))


def _recalled(past: Past | None, guest: GuestMemoryEstimate, now_s: float) -> Past:
    """Bring what is remembered of a guest up to date with what was just seen."""
    past = past or Past()
    if guest.load_ended:
        past = past._replace(grown_s=None, pressed_s=None)
    return past._replace(pressed_s=now_s) if guest.pressure else past


def _remembered(
    pasts: Mapping[str, Past],
    wishes: list[Wish],
    actions: list[Resize],
    settings: GuardSettings,
    now_s: float,
) -> dict[str, Past]:
    """Note what was done."""
    targets_kib = {action.uuid: action.target_kib for action in actions}
    sizes_kib = {wish.guest.uuid: (wish.guest.target_kib, wish.size_kib) for wish in wishes}
    after: dict[str, Past] = {}
    for uuid, past in pasts.items():
        now_kib, wish_kib = sizes_kib.get(uuid, (0, 0))
        target_kib = targets_kib.get(uuid, now_kib)
        if target_kib > now_kib:
            after[uuid] = past._replace(grown_s=now_s, approaching=False)
        else:
            under_way = past.approaching or target_kib < now_kib
            approaching = under_way and target_kib - wish_kib >= settings.tolerance_kib
            after[uuid] = Past(past.grown_s, past.pressed_s, approaching)
    return after


def _released(estimate: MemoryEstimate, settings: GuardSettings) -> list[Resize]:
    """Take the target of a stuck guest back to where it is, so that its driver stops trying."""
    return [
        Resize(
            guest.uuid,
            guest.actual_kib,
            Reason(
                "stuck",
                "{guest} stays at {actual_mib} MiB, not {target_mib}: {why}",
                {
                    "guest": guest.guest_name,
                    "actual_mib": guest.actual_kib // 1024,
                    "target_mib": guest.target_kib // 1024,
                    "why": guest.fixed,
                },
            ),
        )
        for guest in estimate.guests
        if guest.stuck and abs(guest.target_kib - guest.actual_kib) > settings.tolerance_kib
    ]
