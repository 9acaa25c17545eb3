"""A guest that lies harms itself at most: its report counts for its own memory and no other."""

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.memory.drive import MIB, Drive, with_budget_max
from virtbalance.memory.allocation import Claim, allocate
from virtbalance.model.guest import GuestDefinition, GuestSettings
from virtbalance.model.topology import flat_topology
from virtbalance.simulation.guest import Lie, SimGuest, SimMemory, Statistics
from virtbalance.simulation.host import SimulatedHost
from virtbalance.simulation.machine import SimMachine
from virtbalance.simulation.want import Constant

ENDLESS_NEED = Lie(usable_kib=0, unused_kib=0, swap_in_kib_s=50_000.0, major_faults_s=1000.0)
ALL_FREE = Lie(usable_kib=300 * MIB, unused_kib=300 * MIB)
ABSURD = Lie(usable_kib=10**9, unused_kib=10**9)
MAXIMUM_MIB = 4096
BAND_MIB = 48
"""Less than this is not worth a command."""

honest = st.tuples(st.integers(100, 2400), st.sampled_from([0.5, 1.0, 2.0, 4.0]))


def a_guest(
    number: int, want_mib: float, weight: float, start_mib: int, lie: Lie | None
) -> SimGuest:
    return SimGuest(
        f"g{number}",
        memory=SimMemory(
            MAXIMUM_MIB * MIB,
            start_mib * MIB,
            Constant(want_mib * MIB),
            cache_kib=100 * MIB,
            statistics=Statistics(lie=lie),
        ),
        settings=GuestSettings(weight=weight, minimum_kib=256 * MIB),
        definition=GuestDefinition(stats_period_s=1),
        uuid=f"{number:08x}-0000-4000-8000-000000000000",
    )


def live(
    others: list[tuple[int, float]],
    want_mib: float,
    weight: float,
    lie: Lie | None,
    budget_mib: int,
) -> Drive:
    """Return two minutes of a host whose first guest may lie; the others have what they need."""
    guests = [
        a_guest(0, want_mib, weight, 512, lie),
        *(a_guest(i, want, w, want + 400, None) for i, (want, w) in enumerate(others, 1)),
    ]
    host = SimulatedHost(SimMachine(flat_topology(2), 65536 * MIB), guests)
    liars = frozenset({host.uuid_of("g0")} if lie else ())
    return Drive(host, demand=with_budget_max(budget_mib), liars=liars).run(120.0)


@settings(max_examples=25)
@given(
    st.lists(honest, min_size=1, max_size=4),
    st.sampled_from([0.5, 1.0, 4.0]),
    st.sampled_from([ENDLESS_NEED, ALL_FREE, ABSURD]),
    st.integers(1024, 12288),
)
def test_a_liar_gets_no_more_than_who_wants_its_maximum_and_others_keep_theirs(
    others: list[tuple[int, float]], weight: float, lie: Lie, budget_mib: int
) -> None:
    assume(512 + sum(want + 400 for want, _ in others) <= budget_mib)
    lying = live(others, 300.0, weight, lie, budget_mib)
    greedy = live(others, MAXIMUM_MIB, weight, None, budget_mib)
    assert (
        lying.looks[-1].actual_mib["g0"] <= max(512, greedy.looks[-1].actual_mib["g0"]) + BAND_MIB
    )
    weights = weight + sum(w for _, w in others)
    for look in lying.looks[10:]:
        for i, (want_mib, w) in enumerate(others, 1):
            used_mib = want_mib + 30 + 0.03 * MAXIMUM_MIB
            hard_mib = used_mib + max(100, 0.05 * used_mib)
            fair_mib = budget_mib * w / weights
            assert look.actual_mib[f"g{i}"] >= min(hard_mib, fair_mib) - BAND_MIB


@given(
    st.lists(
        st.tuples(st.integers(0, 4096), st.integers(1, 8), st.integers(0, 512)),
        min_size=1,
        max_size=8,
    ),
    st.integers(1, 8),
    st.integers(1024, 16384),
)
def test_whatever_one_claims_the_others_get_their_hard_need_or_their_share(
    others: list[tuple[int, int, int]], weight: int, budget: int
) -> None:
    weights = weight + sum(w for _, w, _ in others)
    assume(all(floor <= budget * w // weights for _, w, floor in others))
    claims = [
        Claim(f"g{i}", w, floor, max(need, floor), max(need, floor), max(need, floor))
        for i, (need, w, floor) in enumerate(others)
    ]
    liar = Claim("liar", weight, 0, 10**9, 10**9, 10**9)
    shares = allocate([*claims, liar], budget, 0).shares
    for claim in claims:
        fair = budget * claim.weight // weights
        assert shares[claim.uuid].size_kib >= min(claim.hard_kib, fair) - 1
    assert shares["liar"].size_kib <= budget - sum(shares[c.uuid].size_kib for c in claims)
