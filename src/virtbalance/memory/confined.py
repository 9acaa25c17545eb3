"""Dividing a host's budget when some guests can't leave a part of its memory.

The whole is divided first. Where a compartment's guests together would get more than is inside,
they share that instead, by the same rules, and the rest is divided anew among the others, who get
more by it. Whoever is settled got less than he would have got outside, so he stays settled, and
each step settles a compartment: the result is again max-min fair, within what each can have.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from virtbalance.memory.allocation import Allocation, Claim, Overload, Share, allocate
from virtbalance.model.memory_estimate import CompartmentEstimate, MemoryEstimate


@dataclass(frozen=True, slots=True)
class ConfinedAllocation:
    """What everybody gets, and whose compartment is the reason."""

    whole: Allocation
    """Tier and level are those of the guests that no compartment limits."""
    limited_by: Mapping[str, CompartmentEstimate]
    """By guest UUID."""


def allocate_confined(
    claims: Sequence[Claim], estimate: MemoryEstimate, overload: Overload
) -> ConfinedAllocation:
    """Divide the budget of the host, and of each compartment, among the guests' claims."""
    everybody = frozenset(claim.uuid for claim in claims)
    host = CompartmentEstimate("host", estimate.budget_kib, estimate.pool_kib, everybody)
    return _divide(claims, host, estimate.compartments, overload)


def _divide(
    claims: Sequence[Claim],
    place: CompartmentEstimate,
    compartments: Sequence[CompartmentEstimate],
    overload: Overload,
) -> ConfinedAllocation:
    """Divide what is in one place among the guests there, and in the compartments it has."""
    settled: dict[str, Share] = {}
    limited_by: dict[str, CompartmentEstimate] = {}
    while True:
        unsettled = [claim for claim in claims if claim.uuid not in settled]
        left_kib = place.budget_kib - _sum_kib(settled)
        whole = allocate(unsettled, left_kib, place.pool_kib, overload)
        shares = settled | dict(whole.shares)
        tight = _overfull(compartments, shares, settled)
        if tight is None:
            return ConfinedAllocation(replace(whole, shares=shares), limited_by)
        inside = [claim for claim in unsettled if claim.uuid in tight.guests]
        taken_kib = _sum_kib({u: share for u, share in settled.items() if u in tight.guests})
        within = [c for c in compartments if c is not tight and c.guests <= tight.guests]
        left = replace(tight, budget_kib=tight.budget_kib - taken_kib)
        part = _divide(inside, left, within, overload)
        settled |= part.whole.shares
        limited_by |= dict.fromkeys(part.whole.shares, tight) | dict(part.limited_by)


def _overfull(
    compartments: Sequence[CompartmentEstimate],
    shares: Mapping[str, Share],
    settled: Mapping[str, Share],
) -> CompartmentEstimate | None:
    """Return a compartment with too much in it of which something can be taken.

    The outermost first: who is settled in there has found room in those further in as well.
    """
    for compartment in sorted(compartments, key=lambda c: (-len(c.guests), c.budget_kib, c.name)):
        inside = {uuid: share for uuid, share in shares.items() if uuid in compartment.guests}
        if _sum_kib(inside) > compartment.budget_kib and inside.keys() - settled.keys():
            return compartment
    return None


def _sum_kib(shares: Mapping[str, Share]) -> int:
    return sum(share.size_kib for share in shares.values())
