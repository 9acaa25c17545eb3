"""What the host can give to all guests that can be resized (memory.md, section 5).

    total - what else runs here - reserve - QEMU's own memory     (never above budget_max)
          - what the fixed guests take - what is reserved for guests to come

What else runs here is not measured but follows: total - available - resident memory of all guests.
It jumps (a backup starts, caches fill), so its median of three is taken and its peak remembered.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from virtbalance.memory.settings import BudgetSettings, Commit
from virtbalance.model.reservation import Reservation
from virtbalance.model.snapshot import HostMemory, MemorySample

_SAMPLES = 3


@dataclass(frozen=True, slots=True)
class OtherUse:
    """What the host has been using besides guests."""

    recent_kib: tuple[int, ...] = ()
    peak_kib: float = 0.0
    seen_s: float = 0.0


def watch_other(
    other: OtherUse,
    host: HostMemory,
    guests: Sequence[MemorySample],
    now_s: float,
    settings: BudgetSettings,
) -> OtherUse:
    """Take in what the host uses besides guests now."""
    # Resident memory is always known where libvirt can read it; a guest it can't be read of is
    # taken to use all it has, because its whole size is charged to the budget as well.
    resident = sum(g.actual_kib if g.rss_kib is None else g.rss_kib for g in guests)
    now_kib = max(0, host.total_kib - host.available_kib - resident + host.ksm_shared_kib)
    recent = (*other.recent_kib, now_kib)[-_SAMPLES:]
    decay = 0.5 ** ((now_s - other.seen_s) / settings.other_half_life_s)
    return OtherUse(recent, max(median(recent), other.peak_kib * decay), now_s)


def reserve_kib(total_kib: int, settings: BudgetSettings) -> int:
    """Return what is left to the host on top of what it uses."""
    small = total_kib < settings.small_host_kib
    least = settings.small_reserve_kib if small else settings.reserve_kib
    return max(least, round(settings.reserve_ratio * total_kib))


def overhead_kib(known_kib: int, sample: MemorySample, *, at_rest: bool) -> int:
    """Return what QEMU needs for itself: the most it was seen to have beyond the guest's size."""
    if not at_rest or sample.rss_kib is None:
        return known_kib
    return max(known_kib, sample.rss_kib - sample.actual_kib)


def charge_kib(
    sample: MemorySample, committed_kib: int, settings: BudgetSettings, *, taken: bool
) -> int:
    """Return what a guest that can't be resized takes out of the budget.

    ``taken``: all its memory was taken when it started (locked, or for a device). What is resident
    is all there will be then; what is not comes from a pool of huge pages, which the host has
    already given away.
    """
    if sample.rss_kib is None:
        return committed_kib
    if taken:
        return min(committed_kib, sample.rss_kib)
    if settings.commit is not Commit.MEASURED:
        return committed_kib
    return min(committed_kib, _seen_kib(sample.rss_kib, settings))


def idle_kib(sample: MemorySample, used_kib: int, settings: BudgetSettings) -> int:
    """Return what others may have of a guest whose balloon is stuck, as long as it does not use it.

    Only of what it has: what it is still to be given is asked for because it will be used.
    ``used_kib``: by its own report, which comes in time: if it begins to use more, that is seen.
    """
    if settings.commit is not Commit.REPORTED or sample.rss_kib is None:
        return 0
    return max(0, sample.actual_kib - _seen_kib(max(sample.rss_kib, used_kib), settings))


def _seen_kib(resident_kib: int, settings: BudgetSettings) -> int:
    return round(settings.measured_ratio * resident_kib) + settings.measured_room_kib


def reserved_kib(reservations: Sequence[Reservation], committed_kib: Mapping[str, int]) -> int:
    """Return what is still to be kept free for guests to come.

    ``committed_kib``: by UUID, what the guests have that are here. One that came after a
    reservation was made uses it up; of several reservations the first one.
    """
    unused_kib = dict(committed_kib)
    left_kib = 0
    for reservation in reservations:
        rest_kib = reservation.size_kib
        for uuid in sorted(unused_kib.keys() - reservation.present):
            part_kib = min(rest_kib, unused_kib[uuid])
            unused_kib[uuid] -= part_kib
            rest_kib -= part_kib
        left_kib += rest_kib
    return left_kib


def budget_kib(
    host: HostMemory,
    other_kib: int,
    overheads_kib: int,
    charges_kib: int,
    settings: BudgetSettings,
) -> int:
    """Return what the guests that can be resized may have in sum; may be negative."""
    left = host.total_kib - other_kib - reserve_kib(host.total_kib, settings) - overheads_kib
    if settings.budget_max_kib is not None:
        left = min(left, settings.budget_max_kib)
    return left - charges_kib
