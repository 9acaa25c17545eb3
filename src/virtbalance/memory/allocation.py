"""Who gets how much: weighted max-min fairness over claims, exactly (memory.md, section 6).

Everybody's claims are met tier by tier: first all floors, then all hard needs, then all soft needs.
At the first tier that does not fit, sizes are raised like water in vessels: everybody to the same
size per weight (the level), but nobody below its claim of the tier before, nor above its claim of
this tier.

    budget 1000, weights 1    floor  hard        floors fit (300), hard needs do not (1300)
                         a      100   200   ->   200   all it needs
                         b      100   500   ->   400   the level
                         c      100   600   ->   400   the level

If all soft needs fit, what is left beyond the pool is spread over the cache claims: equally per
weight, because it is a bonus and not a need.
Not done: moving a guest to another host when the hard needs can't be met for long.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from itertools import groupby
from math import lcm
from typing import NamedTuple

_WEIGHT_DIGITS = 1_000_000
"""Weights count to this precision, so that sums are exact in whole numbers."""


class Overload(StrEnum):
    """What to do when not all hard needs fit."""

    FAIR = "fair"
    """Everybody is equally badly off by weight."""
    PROTECT = "protect"
    """As many as possible have all they need: heavier first, then who has it, then the smallest."""
    WEIGHTS_STRICT = "weights_strict"
    """Heavier guests have all they need before lighter ones get more than their minimum."""


class Standing(IntEnum):
    """How a guest's hard need stands."""

    MET = 0
    """It has that much already."""
    KNOWN = 1
    """It has less, and it is known how much is lacking."""
    HIDDEN = 2
    """It has less, and the claim is just the next guess."""


class Limit(StrEnum):
    """What kept a guest from getting more."""

    FLOOR = "minimum"
    SHARE = "share"
    HARD = "hard need"
    SOFT = "soft need"
    CACHE = "cache"


class Claim(NamedTuple):
    """The claims of one guest, each at least as large as the one before."""

    uuid: str
    weight: float
    floor_kib: int
    hard_kib: int
    soft_kib: int
    cache_kib: int
    standing: Standing = Standing.KNOWN


class Share(NamedTuple):
    """What one guest gets."""

    size_kib: int
    limit: Limit


@dataclass(frozen=True, slots=True)
class Allocation:
    """What everybody gets."""

    shares: Mapping[str, Share]
    """By UUID."""
    tier: Limit
    """The first claims that could not all be met; ``CACHE``: all needs are met."""
    level_kib: float | None = None
    """Size per weight at which the tier was cut; ``None``: it was not cut evenly."""
    short_kib: int = 0
    """By how much the floors alone exceed the budget."""


class Span(NamedTuple):
    """A vessel: filled to ``low_kib`` already, and not above ``high_kib``."""

    uuid: str
    weight: float
    low_kib: int
    high_kib: int


def allocate(
    claims: Sequence[Claim], budget_kib: int, pool_kib: int, overload: Overload = Overload.FAIR
) -> Allocation:
    """Divide the budget; sizes add up to it at most, unless the floors alone are more."""
    floors = sum(c.floor_kib for c in claims)
    if floors > budget_kib:
        shares = {c.uuid: Share(c.floor_kib, Limit.FLOOR) for c in claims}
        return Allocation(shares, Limit.FLOOR, short_kib=floors - budget_kib)
    if sum(c.hard_kib for c in claims) > budget_kib:
        return _OVERLOADED[overload](claims, budget_kib)
    softs = sum(c.soft_kib for c in claims)
    if softs > budget_kib:
        spans = [Span(c.uuid, c.weight, c.hard_kib, c.soft_kib) for c in claims]
        return _cut(spans, budget_kib, Limit.HARD, Limit.SOFT)
    return _bonus(claims, max(0, budget_kib - pool_kib - softs))


def fill(spans: Sequence[Span], amount_kib: int) -> tuple[dict[str, int], float | None]:
    """Raise all to the same level per weight until they hold ``amount_kib`` together.

    Returns sizes by UUID and the level, ``None`` if there is room for all or for none. Exact: the
    sizes add up to the amount wherever the spans permit; the KiB left by rounding go to the
    largest fractions, then by UUID.
    """
    if amount_kib >= sum(s.high_kib for s in spans):
        return {s.uuid: s.high_kib for s in spans}, None
    if amount_kib <= sum(s.low_kib for s in spans):
        return {s.uuid: s.low_kib for s in spans}, None
    weights = {s.uuid: _exact(s.weight) for s in spans}
    rest, weight = _level(spans, weights, amount_kib)
    sizes: dict[str, int] = {}
    fractions: list[tuple[int, str, int]] = []
    for span in spans:
        whole, fraction = divmod(rest * weights[span.uuid], weight)
        sizes[span.uuid] = min(max(whole, span.low_kib), span.high_kib)
        if span.low_kib <= whole < span.high_kib:
            fractions.append((-fraction, span.uuid, 1))
    left = amount_kib - sum(sizes.values())
    for _, uuid, kib in sorted(fractions)[:left]:
        sizes[uuid] += kib
    return sizes, rest * _WEIGHT_DIGITS / weight


def _level(spans: Sequence[Span], weights: Mapping[str, int], amount_kib: int) -> tuple[int, int]:
    """Return the level as a fraction: what those between their bounds share, and their weight.

    Below its low bound a guest takes ``low``, above its high bound ``high``, in between level x
    weight; so the sum grows piecewise with the level, and its pieces are walked upwards.
    """
    # All levels in whole numbers, as multiples of one that divides them: Fractions cost the tick
    # of a small host a tenth of its time.
    unit = lcm(*weights.values())
    turns = sorted(
        [(s.low_kib * (unit // weights[s.uuid]), weights[s.uuid], -s.low_kib) for s in spans]
        + [(s.high_kib * (unit // weights[s.uuid]), -weights[s.uuid], s.high_kib) for s in spans],
        key=lambda turn: turn[0],
    )
    constant, weight = sum(s.low_kib for s in spans), 0
    for level, turn_weight, turn_constant in turns:
        if weight and level * weight >= (amount_kib - constant) * unit:
            break
        constant += turn_constant
        weight += turn_weight
    return amount_kib - constant, weight


def _exact(weight: float) -> int:
    return max(1, round(weight * _WEIGHT_DIGITS))


def _cut(spans: Sequence[Span], budget_kib: int, low: Limit, high: Limit) -> Allocation:
    """Divide a budget within a tier that does not fit."""
    sizes, level_kib = fill(spans, budget_kib)
    shares = {s.uuid: Share(sizes[s.uuid], _bound(s, sizes[s.uuid], low, high)) for s in spans}
    return Allocation(shares, high, level_kib)


def _bound(span: Span, size_kib: int, low: Limit, high: Limit) -> Limit:
    if size_kib >= span.high_kib:
        return high
    return low if size_kib <= span.low_kib else Limit.SHARE


def _bonus(claims: Sequence[Claim], spare_kib: int) -> Allocation:
    """Meet all soft needs and spread what is spare over the cache claims."""
    spans = [Span(c.uuid, c.weight, 0, c.cache_kib - c.soft_kib) for c in claims]
    extra, _ = fill(spans, spare_kib)
    shares = {}
    for claim, span in zip(claims, spans, strict=True):
        more = extra[claim.uuid]
        limit = _bound(span, more, Limit.SOFT, Limit.CACHE)
        shares[claim.uuid] = Share(claim.soft_kib + more, limit)
    return Allocation(shares, Limit.CACHE)


def _fair(claims: Sequence[Claim], budget_kib: int) -> Allocation:
    spans = [Span(c.uuid, c.weight, c.floor_kib, c.hard_kib) for c in claims]
    return _cut(spans, budget_kib, Limit.FLOOR, Limit.HARD)


def _protect(claims: Sequence[Claim], budget_kib: int) -> Allocation:
    """Meet needs one by one; those nobody knows the size of come last and share what is left.

    Who has all it needs keeps it: otherwise guests would take turns in starving.
    """

    def rank(claim: Claim) -> tuple[float, Standing, int, str]:
        hidden = claim.standing is Standing.HIDDEN
        single = (0, "") if hidden else (claim.hard_kib, claim.uuid)
        return -claim.weight, claim.standing, *single

    groups = (list(group) for _, group in groupby(sorted(claims, key=rank), key=rank))
    return _one_after_another(groups, claims, budget_kib)


def _weights_strict(claims: Sequence[Claim], budget_kib: int) -> Allocation:
    order = sorted(claims, key=lambda c: (-c.weight, c.uuid))
    groups = (list(group) for _, group in groupby(order, key=lambda c: c.weight))
    return _one_after_another(groups, claims, budget_kib)


def _one_after_another(
    groups: Iterator[list[Claim]], claims: Sequence[Claim], budget_kib: int
) -> Allocation:
    """Meet the hard needs group by group with what the floors leave."""
    left = budget_kib - sum(c.floor_kib for c in claims)
    shares: dict[str, Share] = {}
    for group in groups:
        floors = sum(c.floor_kib for c in group)
        part = _fair(group, floors + left)
        left -= sum(share.size_kib for share in part.shares.values()) - floors
        shares.update(part.shares)
    return Allocation(shares, Limit.HARD)


_OVERLOADED: Mapping[Overload, Callable[[Sequence[Claim], int], Allocation]] = {
    Overload.FAIR: _fair,
    Overload.PROTECT: _protect,
    Overload.WEIGHTS_STRICT: _weights_strict,
}
