"""What a plan promises, in numbers."""

from hypothesis import given
from hypothesis import strategies as st

from tests.cpu.estimates import estimate_of, vcpu
from virtbalance.cpu.promise import Promise, entitlement_now, placed, promise
from virtbalance.model.cpu_estimate import CpuEstimate
from virtbalance.model.guest import VcpuKey
from virtbalance.model.plan import Pin, Reason

WHY = Reason("test", "test")


def pin(name: str, *cpus: int) -> Pin:
    return Pin(VcpuKey(name, 0), frozenset(cpus), WHY)


def promised(estimate: CpuEstimate, pins: list[Pin]) -> Promise:
    return promise(estimate, entitlement_now(estimate), pins)


def test_four_on_one_of_two_are_evened() -> None:
    heap = estimate_of(2, *(vcpu(name, 0.46, 0) for name in "abcd"))
    seen = promised(heap, [pin("a", 1), pin("b", 1)])
    assert seen.before.loads == {0: 1.84, 1: 0.0}
    assert round(seen.before.shortfall, 9) == 0.84
    assert round(seen.before.shortfall_ratio, 3) == 0.457
    assert round(seen.before.spread_ratio, 9) == 0.92
    assert seen.after.loads == {0: 0.92, 1: 0.92}
    assert (seen.after.shortfall, seen.after.spread_ratio) == (0.0, 0.0)


def test_on_an_overloaded_host_only_what_is_owed_can_fall_short() -> None:
    hogs = estimate_of(2, *(vcpu(name, 1.0, 0) for name in "abcd"))
    seen = promised(hogs, [])
    assert (seen.before.owed, seen.before.shortfall_ratio) == (2.0, 0.5)


def test_a_step_through_the_union_counts_as_the_place_it_leads_to() -> None:
    pair = estimate_of(2, vcpu("a", 0.5, 0), vcpu("b", 0.5, 1))
    steps = [pin("a", 0, 1), pin("b", 0), pin("a", 1)]
    assert [v.home for v in placed(pair, steps).vcpus] == [1, 0]


def test_slow_cpus_are_full_sooner() -> None:
    seen = promised(estimate_of(2, vcpu("a", 0.8, 1), capacity={0: 1.0, 1: 0.5}), [pin("a", 0)])
    assert round(seen.before.shortfall, 9) == 0.3
    assert seen.after.shortfall == 0.0


def test_a_host_without_guests() -> None:
    idle = promised(estimate_of(2), [])
    assert (idle.before.shortfall_ratio, idle.after.spread_ratio) == (0.0, 0.0)


@given(
    st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=12
    )
)
def test_moves_change_neither_what_is_owed_nor_the_sum_of_loads(
    vcpus: list[tuple[float, int, int]],
) -> None:
    host = estimate_of(4, *(vcpu(f"g{i}", d, home) for i, (d, home, _) in enumerate(vcpus)))
    seen = promised(host, [pin(f"g{i}", to) for i, (_, _, to) in enumerate(vcpus)])
    assert seen.before.owed == seen.after.owed
    for service in (seen.before, seen.after):
        assert abs(sum(service.loads.values()) - service.owed) < 1e-9
        assert 0 <= service.shortfall_ratio <= 1
