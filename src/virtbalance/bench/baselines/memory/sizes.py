"""What the memory baselines have in common: sizes as a plan, and periods of their own."""

from collections.abc import Mapping

from virtbalance.model.memory_estimate import MemoryEstimate
from virtbalance.model.plan import DesiredSize, MemoryPlan, Reason

MIB = 1024
"""KiB in a MiB."""


def plan(estimate: MemoryEstimate, sizes: Mapping[str, int], rule: str) -> MemoryPlan:
    """Return the plan for these sizes by UUID; givers come first, unchanged ones not at all."""
    changes = [
        (sizes[guest.uuid] - guest.target_kib, guest)
        for guest in estimate.guests
        if sizes.get(guest.uuid, guest.target_kib) != guest.target_kib
    ]
    changes.sort(key=lambda change: (change[0] > 0, change[1].uuid))
    return MemoryPlan(
        tuple(
            DesiredSize(
                guest.uuid,
                sizes[guest.uuid],
                Reason(
                    rule,
                    "{rule}: {old_kib} to {new_kib} KiB",
                    {"rule": rule, "old_kib": guest.target_kib, "new_kib": sizes[guest.uuid]},
                ),
            )
            for _, guest in changes
        )
    )


def unallocated_kib(estimate: MemoryEstimate) -> int:
    """Return what is free as Xen counts: all that a balloon holds is given away, touched or not.

    Negative on a host whose balloons hold more than there is. Rules made for Xen go wild with a
    KVM host's available memory, which counts untouched memory of open balloons as free.
    """
    held_kib = sum(guest.actual_kib for guest in estimate.guests)
    return estimate.host.total_kib - estimate.other_kib - held_kib


def clamp(value: float, low: float, high: float) -> float:
    """Return the value, or the limit it is beyond; the upper limit wins."""
    return min(max(value, low), high)


def due(now_s: float, at_s: float | None) -> bool:
    """Return whether a baseline's own period is over; ticks may come a little early."""
    return at_s is None or now_s >= at_s - 0.01
