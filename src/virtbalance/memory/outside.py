"""Noticing that somebody else has resized a guest (memory.md, section 8).

libvirt does not tell who set a balloon's target, nor what it is: only the balloon's size is seen,
and it moves for some seconds. So a change from outside is a balloon that moves *away* from our
target: farther from it than the nearest it has been since we set it. A balloon on its way to us
never does that, however slow it is.

    target 700   700 700 700 | 640 570 512 512          outside change to 512, one episode
    target 700   512 590 660 | 700                      on its way, no change
    target 700   512 590 | 540 512                      outside change to 512 while on its way

One change takes several looks to complete. The first one is reported as a change; the ones that
follow, as long as the balloon keeps going, as its continuation, so that it is one conflict with a
growing distance and not many. A balloon that jumps *up* is given one more look, because a guest
that reboots does the same and comes back by itself; nobody is harmed by waiting there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from virtbalance.model.guest import GuestState
from virtbalance.model.snapshot import GuestSample, MemorySample, Snapshot

_MIB = 1024
_MOVED_KIB = 1 * _MIB
"""Less is no movement."""
_TOLERANCE_KIB = 4 * _MIB
_TOLERANCE_RATIO = 0.005
"""Drivers stop this near to their target, and may overshoot by it; the larger counts."""


@dataclass(frozen=True, slots=True)
class OutsideChange:
    """Somebody else has resized a guest."""

    uuid: str
    guest_name: str
    seen_kib: int
    """Where its balloon is now: the value to accept."""
    expected_kib: int
    """What we had set."""
    continued: bool = False
    """The same change as at the look before, still under way, or memory was plugged in or out:
    accept the new value, no conflict."""

    @property
    def text(self) -> str:
        """What happened, for people."""
        seen, expected = self.seen_kib // _MIB, self.expected_kib // _MIB
        return f"balloon at {seen} MiB, we had set {expected} MiB"


class Watched(NamedTuple):
    """One balloon since its target was last set."""

    incarnation: str
    maximum_kib: int
    target_kib: int
    nearest_kib: int
    """The smallest distance from the target it has had."""
    actual_kib: int
    """Its size at the last look."""
    away: int = 0
    """+1 or -1: it is being moved from outside, up or down."""
    doubt: bool = False
    """It has jumped up once."""


OutsideState = Mapping[str, Watched]
"""By guest UUID."""


def observe(
    state: OutsideState | None, snapshot: Snapshot, targets: Mapping[str, int], now_s: float
) -> tuple[tuple[OutsideChange, ...], OutsideState]:
    """Return what others have changed, and the state for the next look.

    ``targets``: what we set last, in KiB by UUID; the caller replaces it by what was seen.
    """
    del now_s
    known = state or {}
    watched: dict[str, Watched] = {}
    changes: list[OutsideChange] = []
    for guest in snapshot.guests:
        target_kib, before = targets.get(guest.uuid), known.get(guest.uuid)
        if target_kib is None or guest.memory is None:
            continue
        if before is None or before.incarnation != guest.incarnation:
            watched[guest.uuid] = _baseline(guest, target_kib, guest.memory.actual_kib)
        elif guest.memory.late or guest.state is not GuestState.RUNNING:
            watched[guest.uuid] = before._replace(target_kib=target_kib)
        else:
            after, change = _look(before, guest, target_kib, guest.memory)
            watched[guest.uuid] = after
            changes.extend([change] if change else [])
    return tuple(changes), watched


def _look(
    before: Watched, guest: GuestSample, target_kib: int, memory: MemorySample
) -> tuple[Watched, OutsideChange | None]:
    """Judge where one balloon has gone since the last look."""
    actual_kib = memory.actual_kib
    if before.maximum_kib != memory.maximum_kib:
        # The balloon holds what it held, so the size has moved with the maximum.
        return _departed(guest, target_kib, actual_kib, 0, continued=True)
    same_target = target_kib == before.target_kib
    if before.away and same_target:
        if (actual_kib - before.actual_kib) * before.away >= _MOVED_KIB:
            return _departed(guest, target_kib, actual_kib, before.away, continued=True)
        return _baseline(guest, target_kib, actual_kib), None
    if not same_target:
        return _baseline(guest, target_kib, actual_kib), None
    distance_kib = abs(actual_kib - target_kib)
    if distance_kib > before.nearest_kib + _tolerance_kib(guest):
        return _strayed(before, guest, target_kib, actual_kib)
    nearest_kib = min(before.nearest_kib, distance_kib)
    return before._replace(nearest_kib=nearest_kib, actual_kib=actual_kib, doubt=False), None


def _strayed(
    before: Watched, guest: GuestSample, target_kib: int, actual_kib: int
) -> tuple[Watched, OutsideChange | None]:
    """Judge a balloon that is farther from its target than it was."""
    if actual_kib < target_kib:
        return _departed(guest, target_kib, actual_kib, -1)
    returning = before.doubt and before.actual_kib - actual_kib >= _MOVED_KIB
    if returning or guest.definition.autodeflate:
        # It rebooted, or its own driver gives memory back because the guest runs out of it.
        return _baseline(guest, target_kib, actual_kib), None
    if not before.doubt:
        return before._replace(actual_kib=actual_kib, doubt=True), None
    return _departed(guest, target_kib, actual_kib, +1)


def _departed(
    guest: GuestSample, target_kib: int, actual_kib: int, away: int, *, continued: bool = False
) -> tuple[Watched, OutsideChange]:
    """Report a change; from now on the value seen is the target expected."""
    change = OutsideChange(guest.uuid, guest.name, actual_kib, target_kib, continued)
    watched = _baseline(guest, actual_kib, actual_kib)
    return watched._replace(away=away), change


def _baseline(guest: GuestSample, target_kib: int, actual_kib: int) -> Watched:
    assert guest.memory is not None
    nearest_kib = abs(actual_kib - target_kib)
    maximum_kib = guest.memory.maximum_kib
    return Watched(guest.incarnation, maximum_kib, target_kib, nearest_kib, actual_kib)


def _tolerance_kib(guest: GuestSample) -> int:
    assert guest.memory is not None
    return max(_TOLERANCE_KIB, round(_TOLERANCE_RATIO * guest.memory.maximum_kib))
