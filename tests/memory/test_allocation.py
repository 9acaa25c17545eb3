"""Weighted max-min over tiers: examples by hand, and the properties of memory.md, section 6."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtbalance.memory.allocation import (
    Allocation,
    Claim,
    Limit,
    Overload,
    Span,
    allocate,
    fill,
)

GIB = 1024 * 1024


def claim(
    uuid: str, floor: int, hard: int, soft: int = 0, cache: int = 0, weight: float = 1.0
) -> Claim:
    soft = max(soft, hard)
    return Claim(uuid, weight, floor, hard, soft, max(cache, soft))


def sizes(allocation: Allocation) -> dict[str, int]:
    return {uuid: share.size_kib for uuid, share in allocation.shares.items()}


def test_a_tier_that_does_not_fit_is_cut_at_one_level() -> None:
    given_ = allocate([claim("a", 100, 200), claim("b", 100, 500), claim("c", 100, 600)], 1000, 0)
    assert sizes(given_) == {"a": 200, "b": 400, "c": 400}
    assert given_.level_kib == 400
    assert given_.tier is Limit.HARD
    assert [given_.shares[u].limit for u in "abc"] == [Limit.HARD, Limit.SHARE, Limit.SHARE]


def test_a_weight_of_two_gets_twice_the_size() -> None:
    given_ = allocate([claim("a", 0, 900, weight=2), claim("b", 0, 900)], 900, 0)
    assert sizes(given_) == {"a": 600, "b": 300}


def test_a_floor_above_the_level_is_kept() -> None:
    given_ = allocate([claim("a", 500, 900), claim("b", 100, 900), claim("c", 100, 900)], 1000, 0)
    assert sizes(given_) == {"a": 500, "b": 250, "c": 250}


def test_soft_needs_are_cut_only_above_the_hard_ones() -> None:
    given_ = allocate([claim("a", 100, 600, 900), claim("b", 100, 200, 900)], 1000, 0)
    assert sizes(given_) == {"a": 600, "b": 400}


def test_floors_above_the_budget_are_all_that_is_given() -> None:
    given_ = allocate([claim("a", 600, 900), claim("b", 600, 600)], 1000, 0)
    assert sizes(given_) == {"a": 600, "b": 600}
    assert given_.short_kib == 200


def test_what_is_left_beyond_the_pool_is_spread_over_filled_caches() -> None:
    claims = [claim("a", 100, 200, 300, 1000), claim("b", 100, 200, 300, 350)]
    assert sizes(allocate(claims, 1000, 100)) == {"a": 550, "b": 350}
    assert sizes(allocate(claims, 5000, 100)) == {"a": 1000, "b": 350}
    assert sizes(allocate(claims, 700, 100)) == {"a": 300, "b": 300}


def test_protect_satisfies_as_many_as_possible_heavier_and_smaller_first() -> None:
    claims = [claim("a", 100, 700), claim("b", 100, 500), claim("c", 100, 600, weight=2)]
    given_ = allocate(claims, 1300, 0, Overload.PROTECT)
    assert sizes(given_) == {"a": 200, "b": 500, "c": 600}


def test_weights_strict_shares_only_among_equals() -> None:
    claims = [claim("a", 100, 700), claim("b", 100, 500), claim("c", 100, 600, weight=2)]
    given_ = allocate(claims, 1300, 0, Overload.WEIGHTS_STRICT)
    assert sizes(given_) == {"a": 350, "b": 350, "c": 600}


def test_the_kib_left_by_rounding_go_to_the_largest_fraction() -> None:
    spans = [Span("a", 1, 0, 100), Span("b", 1, 0, 100), Span("c", 2, 0, 100)]
    filled, level = fill(spans, 102)  # 25.5, 25.5, 51
    assert filled == {"a": 26, "b": 25, "c": 51}
    assert level == 25.5


KIB = st.integers(0, 8 * GIB)
WEIGHTS = st.sampled_from([0.5, 1.0, 1.0, 1.0, 2.0, 3.7])


@st.composite
def claims_and_budget(draw: st.DrawFn) -> tuple[list[Claim], int]:
    count = draw(st.integers(1, 8))
    claims = []
    for i in range(count):
        floor, hard, soft, cache = sorted(draw(st.tuples(KIB, KIB, KIB, KIB)))
        claims.append(Claim(f"guest-{i}", draw(WEIGHTS), floor, hard, soft, cache))
    floors = sum(c.floor_kib for c in claims)
    return claims, draw(st.integers(floors, floors + 40 * GIB))


@given(claims_and_budget(), st.sampled_from(Overload))
def test_never_more_than_the_budget_never_less_than_the_floor(
    case: tuple[list[Claim], int], overload: Overload
) -> None:
    claims, budget = case
    given_ = sizes(allocate(claims, budget, 0, overload))
    assert sum(given_.values()) <= budget
    for c in claims:
        assert c.floor_kib <= given_[c.uuid] <= c.cache_kib


@given(claims_and_budget())
def test_nothing_is_left_while_somebody_needs_it(case: tuple[list[Claim], int]) -> None:
    claims, budget = case
    given_ = sizes(allocate(claims, budget, 0))
    wanted = sum(c.cache_kib for c in claims)
    assert sum(given_.values()) == min(wanted, budget)


@given(claims_and_budget())
def test_nobody_has_more_than_hard_need_while_a_poorer_one_has_less(
    case: tuple[list[Claim], int],
) -> None:
    claims, budget = case
    given_ = sizes(allocate(claims, budget, 0))
    for low in claims:
        if given_[low.uuid] >= low.hard_kib:
            continue
        for high in claims:
            assert given_[high.uuid] <= high.hard_kib
            if given_[high.uuid] > high.floor_kib:
                richest = given_[low.uuid] / low.weight + 1 / low.weight + 1 / high.weight
                assert given_[high.uuid] / high.weight <= richest


@given(claims_and_budget())
def test_equal_guests_get_the_same(case: tuple[list[Claim], int]) -> None:
    claims, budget = case
    twins = [*claims, claims[0]._replace(uuid="twin")]
    given_ = sizes(allocate(twins, budget + claims[0].floor_kib, 0))
    assert abs(given_["twin"] - given_[claims[0].uuid]) <= 1


@given(claims_and_budget(), st.sampled_from([1.5, 2.0, 10.0]))
def test_more_weight_never_means_less(case: tuple[list[Claim], int], times: float) -> None:
    claims, budget = case
    before = sizes(allocate(claims, budget, 0))[claims[0].uuid]
    heavier = [claims[0]._replace(weight=claims[0].weight * times), *claims[1:]]
    assert sizes(allocate(heavier, budget, 0))[claims[0].uuid] >= before - 1


@given(claims_and_budget(), st.randoms())
def test_the_order_of_guests_does_not_matter(
    case: tuple[list[Claim], int], random: st.DataObject
) -> None:
    claims, budget = case
    before = sizes(allocate(claims, budget, 0))
    random.shuffle(claims)  # type: ignore[attr-defined]
    assert sizes(allocate(claims, budget, 0)) == before


@given(claims_and_budget(), st.integers(0, 255))
def test_some_of_them_alone_would_share_their_part_alike(
    case: tuple[list[Claim], int], mask: int
) -> None:
    claims, budget = case
    whole = sizes(allocate(claims, budget, 0))
    some = [c for i, c in enumerate(claims) if mask >> i & 1]
    part = sizes(allocate(some, sum(whole[c.uuid] for c in some), 0))
    for c in some:
        assert abs(part[c.uuid] - whole[c.uuid]) <= len(claims)


@pytest.mark.parametrize("budget", [0, 100, -5])
def test_nobody_there(budget: int) -> None:
    assert sizes(allocate([], budget, 0)) == {}
