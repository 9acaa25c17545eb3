"""What to set guests back to when the coordinator ends, as far as that harms nobody."""

from collections.abc import Mapping, Sequence

from virtbalance.memory.allocation import Span, fill
from virtbalance.memory.settings import GuardSettings
from virtbalance.memory.shrink import safe_kib
from virtbalance.model.memory_estimate import GuestMemoryEstimate, MemoryEstimate
from virtbalance.model.plan import Figure, Reason, Resize

_MIB = 1024


def restore(
    estimate: MemoryEstimate, originals_kib: Mapping[str, int], settings: GuardSettings
) -> tuple[Resize, ...]:
    """Return the commands that bring guests nearest to their original sizes.

    Guests are shrunk to what is safe for them at most, and grown only out of what is free now,
    evenly by weight: what the shrinking ones return comes too late, because nobody watches then.
    """
    guests = [guest for guest in estimate.guests if guest.uuid in originals_kib]
    smaller = [g for g in guests if originals_kib[g.uuid] < g.target_kib and g.fixed is None]
    larger = [g for g in guests if originals_kib[g.uuid] > g.target_kib]
    sizes = {g.uuid: max(originals_kib[g.uuid], safe_kib(g, settings)) for g in smaller}
    spans = [
        Span(
            guest.uuid,
            guest.weight,
            guest.committed_kib,
            max(guest.committed_kib, min(originals_kib[guest.uuid], guest.maximum_kib)),
        )
        for guest in larger
    ]
    free_kib = max(0, estimate.budget_kib - estimate.committed_kib)
    grown = _filled(spans, free_kib)
    for compartment in estimate.compartments:
        inside = [g.committed_kib for g in estimate.resizable if g.uuid in compartment.guests]
        free_kib = max(0, compartment.budget_kib - sum(inside))
        within = _filled([span for span in spans if span.uuid in compartment.guests], free_kib)
        grown |= {uuid: min(kib, grown[uuid]) for uuid, kib in within.items()}
    sizes.update({uuid: min(kib, originals_kib[uuid]) for uuid, kib in grown.items()})
    return tuple(
        _resize(guest, sizes[guest.uuid], originals_kib[guest.uuid])
        for guest in (*smaller, *larger)
        if _worth_it(guest, sizes[guest.uuid], originals_kib[guest.uuid], settings)
    )


def _filled(spans: Sequence[Span], free_kib: int) -> dict[str, int]:
    return fill(spans, sum(span.low_kib for span in spans) + free_kib)[0]


def _worth_it(
    guest: GuestMemoryEstimate, size_kib: int, original_kib: int, settings: GuardSettings
) -> bool:
    """Return whether the size is nearer to the original than the target is, noticeably."""
    nearer_kib = abs(guest.target_kib - original_kib) - abs(size_kib - original_kib)
    return nearer_kib >= settings.tolerance_kib or (size_kib == original_kib and nearer_kib > 0)


def _resize(guest: GuestMemoryEstimate, size_kib: int, original_kib: int) -> Resize:
    figures: dict[str, Figure] = {
        "guest": guest.guest_name,
        "size_mib": size_kib // _MIB,
        "original_mib": original_kib // _MIB,
    }
    template = "{guest} back to its original {original_mib} MiB"
    if size_kib > original_kib:
        template = "{guest} to {size_mib} MiB: its original {original_mib} MiB is not safe now"
    elif size_kib < original_kib:
        template = "{guest} to {size_mib} MiB: its original {original_mib} MiB does not fit now"
    return Resize(guest.uuid, size_kib, Reason("restore", template, figures))
