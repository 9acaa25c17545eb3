"""How much may be taken from a guest now (memory.md, section 7).

A step is computed from the balloon's size and what is in use, never from the target alone or the
free figure, so a starving guest can't be shrunk. It leaves the guest at least its minimum, its
wish, and what it uses with head-room ("safe").

While nobody is in need there is time: small amounts are not worth it, a guest that grew or was
under pressure is left alone for a while, and a step takes at most half of what is usable. While
somebody starves or the host is in need, waiting is over, and steps are larger, but still bounded.
"""

from typing import NamedTuple

from virtbalance.memory.scene import Scene, Wish, mib, refusal, resize
from virtbalance.memory.settings import GuardSettings
from virtbalance.model.memory_estimate import GuestMemoryEstimate
from virtbalance.model.plan import Amendment, Resize


class Past(NamedTuple):
    """What the guard remembers of one guest."""

    grown_s: float | None = None
    """When it was last given more."""
    pressed_s: float | None = None
    """When it was last under pressure."""
    approaching: bool = False
    """It is being taken down to its wish in several steps."""


def shrink(wish: Wish, past: Past, scene: Scene) -> Resize | Amendment:
    """Return the next step towards a smaller size, or why there is none."""
    return _barred(wish, scene) or _too_soon(wish, past, scene) or _step(wish, scene)


def safe_kib(guest: GuestMemoryEstimate, settings: GuardSettings) -> int:
    """Return the size that leaves a guest what it uses, with head-room.

    What it uses is taken to be all that is not usable, so that the two figures, which come from
    different sources, must both permit a step.
    """
    headroom_kib = max(settings.safe_kib, round(settings.safe_ratio * guest.used_kib))
    return max(guest.used_kib, guest.actual_kib - guest.usable_kib) + headroom_kib


def can_be_squeezed(guest: GuestMemoryEstimate) -> bool:
    """Return whether it just gets slower if it has less than it uses."""
    return guest.swaps and not guest.growable_only


def _barred(wish: Wish, scene: Scene) -> Amendment | None:
    """Return why the guest must not be shrunk at all."""
    hold = scene.holds.get(wish.guest.uuid)
    if hold is not None and hold.until_s > scene.now_s:
        return refusal(wish, "hold", hold.text)
    if wish.guest.growable_only and not scene.critical:
        return refusal(wish, "new", wish.guest.growable_only)
    return None


def _too_soon(wish: Wish, past: Past, scene: Scene) -> Amendment | None:
    """Return why it is not worth it, or not yet."""
    settings, guest = scene.settings, wish.guest
    excess_kib = guest.target_kib - wish.size_kib
    if not scene.calm:
        if excess_kib < settings.urgent_band_kib:
            return refusal(wish, "dead-band", "too little to be worth it")
        return None
    band_kib = max(
        settings.shrink_band_kib,
        settings.shrink_band_ratio * guest.maximum_kib,
        settings.shrink_band_kib_s * scene.interval_s,
    )
    if excess_kib < (settings.tolerance_kib if past.approaching else band_kib):
        return refusal(wish, "dead-band", "too little to be worth it")
    if past.grown_s is not None and scene.now_s - past.grown_s < settings.growth_wait_s:
        return refusal(wish, "cool-down", f"it grew less than {settings.growth_wait_s:g} s ago")
    if past.pressed_s is not None and scene.now_s - past.pressed_s < settings.pressure_wait_s:
        why = f"it was under pressure less than {settings.pressure_wait_s:g} s ago"
        return refusal(wish, "cool-down", why)
    return None


def _step(wish: Wish, scene: Scene) -> Resize | Amendment:
    """Return the step, bounded by whichever limit is reached first."""
    guest = wish.guest
    step_kib, part = _largest_step(guest, scene)
    stepped_kib = guest.actual_kib - step_kib
    least_kib = max(stepped_kib, safe_kib(guest, scene.settings))
    squeezed_kib = _squeezed_kib(guest, scene)
    squeezed = squeezed_kib < min(guest.actual_kib, least_kib)
    if squeezed:
        least_kib = squeezed_kib
    target_kib = max(wish.size_kib, guest.minimum_kib, least_kib)
    if target_kib == wish.size_kib:
        rule, limit = "step", "all of it"
    elif target_kib == guest.minimum_kib:
        rule, limit = "safe", "its minimum"
    elif squeezed:
        rule, limit = "step", "squeezed a little: not all hard needs fit"
    elif target_kib == stepped_kib:
        rule, limit = "step", f"{part} of the {mib(guest.usable_kib)} it can spare at once"
    else:
        rule = "safe"
        limit = f"it uses {mib(guest.used_kib)}, less than {mib(target_kib)} is not safe"
    if guest.target_kib - target_kib < scene.settings.tolerance_kib:
        return refusal(wish, rule, limit)
    return resize(wish, target_kib, limit)


def _largest_step(guest: GuestMemoryEstimate, scene: Scene) -> tuple[int, str]:
    """Return what may be taken at once, and which part of the usable memory that is."""
    settings = scene.settings
    half_kib = settings.calm_step_ratio * guest.usable_kib
    block_kib = max(settings.calm_step_kib, settings.calm_step_maximum_ratio * guest.maximum_kib)
    if scene.calm:
        return int(min(half_kib, block_kib)), "half" if half_kib < block_kib else "a part"
    most_kib = min(settings.urgent_step_ratio * guest.usable_kib, block_kib)
    return int(max(half_kib, most_kib)), "as much as is safe"


def _squeezed_kib(guest: GuestMemoryEstimate, scene: Scene) -> int:
    """Return the size to which a guest may be squeezed, below safe, by what is usable at most.

    Only in overload, where everybody is short, and only a guest that just gets slower by it: one
    with swap, whose kernel makes a little usable again and again, until it suffers more than the
    poorest (while the host itself is in need, on and on). For others: the size it has.
    """
    settings = scene.settings
    if not (
        scene.overload
        and can_be_squeezed(guest)
        and guest.usable_kib < settings.squeeze_below_ratio * guest.actual_kib
        and (scene.critical or guest.swap_in_kib_s <= scene.poorest_swap_in_kib_s)
    ):
        return guest.actual_kib
    part_kib = max(settings.squeeze_kib, round(settings.squeeze_ratio * guest.actual_kib))
    return guest.actual_kib - min(part_kib, guest.usable_kib)
