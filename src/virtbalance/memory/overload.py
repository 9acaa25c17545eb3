"""When memory stays short whatever is moved: the events, and the guest that should move away.

Most overloads are over within two minutes, sooner than a guest has been migrated; those that last
end only when a guest goes. The best one to go is the smallest whose share alone covers what is
missing, because moving it costs least; where none is large enough, the largest.
"""

from dataclasses import dataclass

from virtbalance.model.memory_estimate import GuestMemoryEstimate, MemoryEstimate
from virtbalance.model.tick import Event

_MIB = 1024


@dataclass(frozen=True, slots=True)
class OverloadWatch:
    """What has been noticed so far."""

    overcommitted: bool = False
    """Not even the minima fit."""
    since_s: float | None = None
    """Since when the hard needs do not."""
    told: bool = False
    """It was said who should go."""


def watch_overload(
    watch: OverloadWatch, estimate: MemoryEstimate, now_s: float, migrate_after_s: float
) -> tuple[tuple[Event, ...], OverloadWatch]:
    """Return what is to be said now, each once an overload."""
    guests = estimate.resizable
    if not guests:
        return (), OverloadWatch()
    events = []
    overcommitted = estimate.shortfall_kib > 0
    if overcommitted and not watch.overcommitted:
        events.append(_overcommitted(estimate.shortfall_kib))
    missing_kib = sum(guest.hard_kib for guest in guests) - estimate.whole_kib
    if missing_kib <= 0:
        return tuple(events), OverloadWatch(overcommitted)
    since_s = now_s if watch.since_s is None else watch.since_s
    told = watch.told
    if not told and now_s - since_s >= migrate_after_s:
        told = True
        events.append(_lasting(estimate, missing_kib, now_s - since_s))
    return tuple(events), OverloadWatch(overcommitted, since_s, told)


def _overcommitted(shortfall_kib: int) -> Event:
    text = f"the guests' minima exceed what the host can give by {shortfall_kib // _MIB} MiB"
    return Event(
        "overcommitted", f"{text}: nothing grows", figures={"shortfall_kib": shortfall_kib}
    )


def _lasting(estimate: MemoryEstimate, missing_kib: int, lasted_s: float) -> Event:
    guest = _to_go(estimate.resizable, missing_kib)
    text = (
        f"{missing_kib // _MIB} MiB have been missing for {lasted_s:.0f} s to what the guests "
        f"need at once: migrate one, best {guest.guest_name} ({guest.hard_kib // _MIB} MiB)"
    )
    figures = {"missing_kib": missing_kib, "lasted_s": round(lasted_s), "need_kib": guest.hard_kib}
    return Event("overload", text, guest.uuid, figures)


def _to_go(guests: tuple[GuestMemoryEstimate, ...], missing_kib: int) -> GuestMemoryEstimate:
    enough = [guest for guest in guests if guest.hard_kib >= missing_kib]
    if enough:
        return min(enough, key=lambda guest: (guest.hard_kib, guest.uuid))
    return max(guests, key=lambda guest: (guest.hard_kib, guest.uuid))
