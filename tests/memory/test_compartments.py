"""Guests that can't leave a part of the host's memory: its budget, its division, its guard."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.memory.make import MIB, Watcher, believed, guest, sample, whole, wishes
from tests.memory.test_allocation import claim
from virtbalance.memory.allocation import Claim, Overload, allocate
from virtbalance.memory.confined import allocate_confined
from virtbalance.memory.guard import guard
from virtbalance.memory.policies.fair import Fair
from virtbalance.memory.restore import restore
from virtbalance.memory.settings import DemandSettings, GuardSettings
from virtbalance.model.guest import GuestDefinition
from virtbalance.model.memory_estimate import CompartmentEstimate, MemoryEstimate
from virtbalance.model.plan import Resize
from virtbalance.model.snapshot import Compartment


def node(
    budget: int, *guests: str, pool: int = 0, name: str = "NUMA node 0"
) -> CompartmentEstimate:
    return CompartmentEstimate(name, budget, pool, frozenset(guests))


def budgeted(budget: int, *compartments: CompartmentEstimate) -> MemoryEstimate:
    return replace(whole(), budget_kib=budget, pool_kib=0, compartments=compartments)


def divided(
    claims: list[Claim], budget: int, *inside: CompartmentEstimate, overload: str = "fair"
) -> dict[str, int]:
    confined = allocate_confined(claims, budgeted(budget, *inside), Overload(overload))
    return {uuid: share.size_kib for uuid, share in confined.whole.shares.items()}


# Budgets


def test_a_nodes_budget_is_what_others_there_the_reserve_and_qemu_leave() -> None:
    part = Compartment("NUMA node 1", 8192 * MIB, 5000 * MIB, frozenset({"a", "b"}))
    guests = [guest(sample(300, 512), name) for name in "abc"]
    (inside,) = Watcher().whole(0, *guests, compartments=(part,)).compartments
    # Of 3192 taken 2 x 512 are of the two inside; 5 % stay free, and 64 each for QEMU.
    other = 8192 - 5000 - 2 * 512
    assert round(inside.budget_kib / MIB) == 8192 - other - 410 - 2 * 64
    assert round(inside.pool_kib / MIB) == 328
    assert inside.guests == {"a", "b"}


def test_a_fixed_guest_inside_is_charged_there() -> None:
    part = Compartment("NUMA node 1", 8192 * MIB, 5000 * MIB, frozenset({"a", "b"}))
    still = guest(sample(300, 512), "b", definition=GuestDefinition(balloon=False))
    free, charged = (
        Watcher().whole(0, guest(sample(300, 512), "a"), b, compartments=(part,)).compartments[0]
        for b in (guest(sample(300, 512), "b"), still)
    )
    assert free.budget_kib - charged.budget_kib == 512 * MIB


def test_what_else_is_inside_is_remembered_at_its_peak() -> None:
    watcher = Watcher(DemandSettings())
    budgets = []
    for second, available in enumerate((5000, 5000, 3000, 3000, 5000)):
        part = Compartment("NUMA node 1", 8192 * MIB, available * MIB, frozenset({"a"}))
        seen = watcher.whole(second, guest(sample(300), "a"), compartments=(part,))
        budgets.append(round(seen.compartments[0].budget_kib / MIB))
    assert budgets[0] - budgets[3] == 2000
    assert budgets[4] == budgets[3]


# Division


def test_guests_in_a_full_node_share_it_and_the_others_have_the_rest() -> None:
    claims = [claim(name, 100, 600) for name in "abcd"]
    assert divided(claims, 1800, node(500, "a", "b")) == {"a": 250, "b": 250, "c": 600, "d": 600}


def test_weights_and_floors_count_inside_as_well() -> None:
    claims = [claim("a", 100, 900, weight=3), claim("b", 100, 900), claim("c", 100, 300)]
    assert divided(claims, 5000, node(600, "a", "b")) == {"a": 450, "b": 150, "c": 300}
    assert divided(claims, 5000, node(150, "a", "b")) == {"a": 100, "b": 100, "c": 300}


def test_a_limit_on_one_guest_inside_a_node_binds_it_alone() -> None:
    claims = [claim(name, 100, 600) for name in "abc"]
    limits = (node(1000, "a", "b"), node(200, "a", name="control group a"))
    assert divided(claims, 5000, *limits) == {"a": 200, "b": 600, "c": 600}


def test_a_limit_further_in_that_is_wider_than_the_one_around_it_does_not_count() -> None:
    claims = [claim("a", 0, 600), claim("b", 0, 600)]
    limits = (node(300, "a", "b"), node(400, "a", name="control group a"))
    assert divided(claims, 5000, *limits) == {"a": 150, "b": 150}


def test_who_is_limited_by_what_is_told_in_the_policys_reason() -> None:
    guests = [believed(name, used=2000, actual=1024, maximum=4096) for name in "abc"]
    estimate = replace(whole(*guests), compartments=(node(2000 * MIB, "a", "b"),))
    plan, _ = Fair().decide(None, estimate, Fair.Config(), 0.0)
    texts = [str(size.reason) for size in plan.sizes]
    assert "may have 1000 of 2000 in NUMA node 0: its share by weight" in texts[0]
    assert "of 8192: " in texts[2]


CLAIMS = st.lists(
    st.tuples(*[st.integers(0, 2000)] * 4, st.sampled_from([0.5, 1.0, 2.0])),
    min_size=1,
    max_size=6,
).map(
    lambda rows: [
        claim(f"g{i}", a, a + b, a + b + c, a + b + c + d, weight=w)
        for i, (a, b, c, d, w) in enumerate(rows)
    ]
)
NODES = st.lists(
    st.tuples(st.integers(0, 8000), st.sets(st.sampled_from([f"g{i}" for i in range(6)]))),
    max_size=3,
).map(lambda rows: [node(b, *names, name=f"n{i}") for i, (b, names) in enumerate(rows)])


@given(CLAIMS, st.integers(0, 20000), NODES, st.sampled_from(list(Overload)))
def test_no_compartment_gives_more_than_it_has_and_nobody_gets_less_than_his_floor(
    claims: list[Claim], budget: int, nodes: list[CompartmentEstimate], overload: Overload
) -> None:
    sizes = divided(claims, budget, *nodes, overload=overload)
    assert sizes.keys() == {c.uuid for c in claims}
    floors = {c.uuid: c.floor_kib for c in claims}
    for c in claims:
        assert c.floor_kib <= sizes[c.uuid] <= c.cache_kib
    for place in (*nodes, node(budget, *floors)):
        inside = place.guests & sizes.keys()
        given_ = sum(sizes[uuid] for uuid in inside)
        above = sum(sizes[uuid] - floors[uuid] for uuid in inside)
        assert given_ <= place.budget_kib or above == 0 or _shared(place, nodes)


def _shared(place: CompartmentEstimate, nodes: list[CompartmentEstimate]) -> bool:
    """Compartments that overlap without one holding the other settle one after the other."""
    return any(
        place.guests & other.guests
        and not place.guests <= other.guests
        and not other.guests <= place.guests
        for other in nodes
    )


@given(CLAIMS, st.integers(0, 20000))
def test_a_roomy_compartment_changes_nothing(claims: list[Claim], budget: int) -> None:
    free = allocate(claims, budget, 0).shares
    sizes = divided(claims, budget, node(200_000, "g0", "g1"))
    assert sizes == {uuid: share.size_kib for uuid, share in free.items()}


# Guard


def guarded(estimate: MemoryEstimate, **sizes_mib: float) -> dict[str, int]:
    verdict, _ = guard(None, estimate, wishes(**sizes_mib), {}, GuardSettings(), 1.0)
    return {a.uuid: a.target_kib // MIB for a in verdict.actions if isinstance(a, Resize)}


def test_growth_comes_out_of_what_is_free_inside() -> None:
    guests = [believed(name, actual=512) for name in "abc"]
    estimate = replace(whole(*guests), compartments=(node(1224 * MIB, "a", "b"),))
    assert guarded(estimate, a=1024, b=1024, c=1024) == {"a": 612, "b": 612, "c": 1024}
    over = replace(estimate, compartments=(node(900 * MIB, "a", "b"),))
    assert guarded(over, a=1024, b=1024, c=1024) == {"c": 1024}


def test_hard_needs_inside_come_first() -> None:
    needy = believed("a", used=800, actual=512, hard=900)
    estimate = replace(
        whole(needy, believed("b", actual=512)), compartments=(node(1224 * MIB, "a", "b"),)
    )
    assert guarded(estimate, a=1024, b=1024) == {"a": 712}


@pytest.mark.parametrize(("names", "taken"), [("ab", {"b"}), ("ac", {"c"})])
def test_who_starves_in_a_compartment_hurries_only_those_inside(
    names: str, taken: set[str]
) -> None:
    """40 MiB are too little to take while nobody is in need."""
    guests = [
        believed("a", used=800, actual=512, hard=900),
        believed("b", used=200, actual=512),
        believed("c", used=200, actual=512),
    ]
    part = node(1024 * MIB, *names)
    estimate = replace(whole(*guests), compartments=(part,))
    assert guarded(estimate, a=900, b=472, c=472).keys() == taken


def test_nobody_is_put_back_to_more_than_is_inside() -> None:
    guests = [believed(name, actual=512) for name in "abc"]
    estimate = replace(whole(*guests), compartments=(node(1224 * MIB, "a", "b"),))
    originals = dict.fromkeys("abc", 1024 * MIB)
    back = restore(estimate, originals, GuardSettings())
    assert {r.uuid: r.target_kib // MIB for r in back} == {"a": 612, "b": 612, "c": 1024}


PLACES = st.lists(
    st.tuples(st.integers(0, 4000), st.sets(st.sampled_from("abcd"))), min_size=1, max_size=3
)


@given(
    st.lists(st.tuples(*[st.integers(100, 2000)] * 4), min_size=4, max_size=4), PLACES, st.data()
)
def test_what_is_committed_inside_never_rises_above_what_is_there(
    figures: list[tuple[int, int, int, int]],
    places: list[tuple[int, set[str]]],
    data: st.DataObject,
) -> None:
    guests = [
        believed(name, used=min(used, actual), actual=actual, target=target, hard=hard)
        for name, (used, actual, target, hard) in zip("abcd", figures, strict=True)
    ]
    rooms = [node(mib * MIB, *names, name=f"n{i}") for i, (mib, names) in enumerate(places)]
    estimate = replace(whole(*guests), compartments=tuple(rooms))
    wanted = {g.uuid: float(data.draw(st.integers(0, 2048))) for g in guests}
    verdict, _ = guard(None, estimate, wishes(**wanted), {}, GuardSettings(), 1.0)
    targets = {g.uuid: g.target_kib for g in guests}
    after = targets | {a.uuid: a.target_kib for a in verdict.actions if isinstance(a, Resize)}
    for room in rooms:
        inside = [g for g in guests if g.uuid in room.guests]
        before_kib = sum(g.committed_kib for g in inside)
        after_kib = sum(max(g.actual_kib, after[g.uuid]) for g in inside)
        grown = [g.uuid for g in inside if after[g.uuid] > g.committed_kib]
        assert after_kib <= max(before_kib, room.budget_kib)
        assert before_kib <= room.budget_kib or not grown
