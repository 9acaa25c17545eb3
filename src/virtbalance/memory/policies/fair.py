"""The default policy: weighted max-min fairness over what guests need (memory.md, section 6)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from virtbalance.memory.allocation import (
    Claim,
    Limit,
    Overload,
    Share,
    Standing,
)
from virtbalance.memory.confined import ConfinedAllocation, allocate_confined
from virtbalance.model.memory_estimate import GuestMemoryEstimate, MemoryEstimate
from virtbalance.model.plan import DesiredSize, Figure, MemoryPlan, Reason

_MIB = 1024
_ENOUGH_RATIO = 1.02
"""A guest that lacks less than this has what it needs: its use always varies a little."""

_LIMITS: Mapping[Limit, str] = {
    Limit.FLOOR: "its minimum, more does not fit",
    Limit.SHARE: "its share by weight",
    Limit.HARD: "all it needs now",
    Limit.SOFT: "all it needs, with room to breathe",
    Limit.CACHE: "all it needs, cache included",
}


class Fair:
    """Meets needs tier by tier; where they do not fit, everybody gets the same by weight."""

    name = "fair"

    @dataclass(frozen=True, slots=True)
    class Config:
        """What can be chosen."""

        overload: Overload = Overload.FAIR
        """What to do when the host can't meet all needs."""

    def decide(
        self, state: Any, estimate: MemoryEstimate, config: Config, now_s: float
    ) -> tuple[MemoryPlan, Any]:
        """Return the size every guest should have in the end."""
        del now_s
        guests = estimate.resizable
        # Guests that may not shrink keep what they have, as long as all that fits.
        keep = estimate.committed_kib <= estimate.budget_kib
        claims = [_claim(guest, keep=keep) for guest in guests]
        allocation = allocate_confined(claims, estimate, config.overload)
        sizes = (_wish(guest, allocation, estimate.budget_kib) for guest in guests)
        return MemoryPlan(tuple(sizes)), state


def _claim(guest: GuestMemoryEstimate, *, keep: bool) -> Claim:
    floor = guest.minimum_kib
    if keep and guest.growable_only:
        floor = max(floor, min(guest.committed_kib, guest.maximum_kib))
    hard = max(floor, guest.hard_kib)
    soft = max(hard, guest.soft_kib)
    cache = max(soft, guest.cache_kib)
    return Claim(guest.uuid, guest.weight, floor, hard, soft, cache, _standing(guest, hard))


def _standing(guest: GuestMemoryEstimate, hard_kib: int) -> Standing:
    if guest.hidden:
        return Standing.HIDDEN
    return Standing.MET if hard_kib <= guest.committed_kib * _ENOUGH_RATIO else Standing.KNOWN


def _wish(guest: GuestMemoryEstimate, confined: ConfinedAllocation, budget_kib: int) -> DesiredSize:
    allocation = confined.whole
    share = allocation.shares[guest.uuid]
    compartment = confined.limited_by.get(guest.uuid)
    if compartment:
        budget_kib = compartment.budget_kib
    figures: dict[str, Figure] = {
        "guest": guest.guest_name,
        "need_mib": guest.hard_kib // _MIB,
        "used_mib": guest.used_kib // _MIB,
        "lead_mib": guest.lead_kib // _MIB,
        "soft_mib": guest.soft_kib // _MIB,
        "cache_mib": guest.cache_kib // _MIB,
        "minimum_mib": guest.minimum_kib // _MIB,
        "weight": guest.weight,
        "size_mib": share.size_kib // _MIB,
        "budget_mib": budget_kib // _MIB,
        "place": f" in {compartment.name}" if compartment else "",
        "tier": allocation.tier,
        "level_mib": None if allocation.level_kib is None else round(allocation.level_kib / _MIB),
        "limit": share.limit,
        "why": _why(guest, share),
    }
    template = (
        "it uses {used_mib} MiB, soon {lead_mib} more, and needs {need_mib}; "
        "may have {size_mib} of {budget_mib}{place}: {why}"
    )
    return DesiredSize(guest.uuid, share.size_kib, Reason("fair", template, figures))


def _why(guest: GuestMemoryEstimate, share: Share) -> str:
    if share.size_kib >= guest.maximum_kib:
        return "its maximum"
    if guest.growable_only and share.size_kib == guest.committed_kib:
        return f"as it is, {guest.growable_only}"
    if share.size_kib == guest.minimum_kib and guest.hard_kib <= share.size_kib:
        return "its minimum, it needs no more"
    return _LIMITS[share.limit]
