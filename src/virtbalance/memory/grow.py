"""Who is given memory now (memory.md, section 7).

Only what is really free is given: the budget less what everybody has or may have any moment, so
that the memory is there even if all balloons reach their targets at once. What others are asked
to return counts when it has been returned. Hard needs come first; where they exceed what is free,
everybody in need is raised to the same size per weight.
"""

from collections.abc import Sequence

from virtbalance.memory.allocation import Span, fill
from virtbalance.memory.host_state import HostState
from virtbalance.memory.scene import Scene, Wish, refusal, resize
from virtbalance.model.plan import Amendment, Resize


def grow(wishes: Sequence[Wish], scene: Scene) -> list[Resize | Amendment]:
    """Return a step, or why there is none, for guests that should be larger; neediest first."""
    granted_kib = _share_out(wishes, scene.free_kib, scene)
    for room in scene.rooms:
        inside = [wish for wish in wishes if wish.guest.uuid in room.guests]
        for uuid, kib in _share_out(inside, room.free_kib, scene).items():
            granted_kib[uuid] = min(granted_kib[uuid], kib)
    order = sorted(wishes, key=lambda w: (-_missing_kib(w) // 1024, _size_per_weight(w)))
    return [_grant(wish, granted_kib[wish.guest.uuid], scene) for wish in order]


def _share_out(wishes: Sequence[Wish], free_kib: int, scene: Scene) -> dict[str, int]:
    """Divide what is free: hard needs first, and the rest only once these are met."""
    has_kib = {w.guest.uuid: w.guest.committed_kib for w in wishes}
    for want in (_urgent_kib, _whole_kib):
        spans = [
            Span(
                w.guest.uuid,
                w.guest.weight,
                has_kib[w.guest.uuid],
                max(has_kib[w.guest.uuid], want(w, scene)),
            )
            for w in wishes
        ]
        before_kib = sum(w.guest.committed_kib for w in wishes)
        has_kib, _ = fill(spans, before_kib + max(0, free_kib))
    return has_kib


def _urgent_kib(wish: Wish, scene: Scene) -> int:
    return min(wish.urgent_kib, _highest(wish, scene)[0])


def _whole_kib(wish: Wish, scene: Scene) -> int:
    return min(wish.size_kib, _highest(wish, scene)[0])


def _highest(wish: Wish, scene: Scene) -> tuple[int, str]:
    """Return the size above which the guest must not be taken now, whatever is free."""
    guest = wish.guest
    if scene.state is HostState.RED:
        return guest.minimum_kib, "the host is short of memory: nothing above the minimum"
    hold = scene.holds.get(guest.uuid)
    if hold is not None and hold.until_s > scene.now_s:
        return guest.hard_kib, f"no more than it needs at once: {hold.text}"
    if scene.state is HostState.ORANGE:
        return guest.hard_kib, "the host is low on memory: no more than is needed at once"
    if scene.state is HostState.YELLOW:
        return guest.soft_kib, "the host has little to spare: nothing for cache"
    return guest.maximum_kib, "its maximum"


def _grant(wish: Wish, granted_kib: int, scene: Scene) -> Resize | Amendment:
    """Return the step to what was granted, if it is worth one."""
    settings, guest = scene.settings, wish.guest
    highest_kib, highest_text = _highest(wish, scene)
    target_kib = min(granted_kib, max(wish.size_kib, guest.target_kib))
    target_kib = min(target_kib, max(highest_kib, guest.target_kib))
    more_kib = target_kib - guest.target_kib
    if target_kib >= wish.size_kib:
        rule, limit = "dead-band", "all of it"
    elif target_kib >= highest_kib:
        rule, limit = "host" if scene.state > HostState.GREEN else "hold", highest_text
    else:
        rule, limit = "free", "no more is free"
    has_soft = guest.target_kib >= guest.soft_kib
    band_ratio = settings.cache_band_ratio if has_soft else settings.grow_band_ratio
    band_kib = max(settings.grow_band_kib, band_ratio * guest.maximum_kib)
    if guest.target_kib < wish.urgent_kib:
        band_kib = settings.urgent_grow_band_kib
    elif wish.size_kib <= guest.actual_kib:
        # It still has more than that; turning a balloon on its way down is for hard need only.
        return refusal(wish, "dead-band", "it still has more")
    if wish.size_kib >= guest.maximum_kib:
        # The last step may be small: without it a guest would never quite reach its maximum.
        band_kib = min(band_kib, wish.size_kib - guest.target_kib)
    if more_kib <= 0 or more_kib < band_kib:
        why = "too little to be worth it" if rule == "dead-band" else limit
        return refusal(wish, rule, why)
    return resize(wish, target_kib, limit)


def _missing_kib(wish: Wish) -> int:
    return max(0, wish.urgent_kib - wish.guest.committed_kib)


def _size_per_weight(wish: Wish) -> float:
    return wish.guest.committed_kib / wish.guest.weight
