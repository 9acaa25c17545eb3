"""The first policy: homes, moves and swaps that pay, and rest."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cpu.estimates import applied, estimate_of, vcpu
from virtbalance.cpu.backoff import BackOff
from virtbalance.cpu.policies.balance import Balance, Memory
from virtbalance.cpu.policies.hold import Hold
from virtbalance.model.cpu_estimate import CpuEstimate
from virtbalance.model.plan import CpuPlan
from virtbalance.model.topology import Pcpu, Topology


def decide(estimate: CpuEstimate, config: Balance.Config | None = None) -> CpuPlan:
    return Balance().decide(None, estimate, config or Balance.Config(pin="cpu"), 0.0)[0]


def homes(estimate: CpuEstimate) -> dict[str, int | None]:
    after = applied(estimate, decide(estimate))
    return {f"{v.guest_name}/{v.key.vcpu}": v.home for v in after.vcpus}


def test_hold_changes_nothing() -> None:
    crowd = estimate_of(2, *(vcpu(f"g{i}", 0.5, 0) for i in range(4)))
    assert Hold().decide(None, crowd, Hold.Config(), 0.0) == (CpuPlan(), None)


def test_four_on_one_of_two_become_two_and_two_with_two_moves_and_say_why() -> None:
    plan = decide(estimate_of(2, *(vcpu(f"web{i}", 0.46, 0) for i in range(1, 5))))
    assert [str(pin.reason) for pin in plan.pins] == [
        "pCPU 0 is loaded 1.84, pCPU 1 0.00; moving 0.46 evens them to 1.38/0.46",
        "pCPU 0 is loaded 1.38, pCPU 1 0.46; moving 0.46 evens them to 0.92/0.92",
    ]


def test_heavies_and_lights_in_bad_order_swap_once() -> None:
    """P3 in small: two heavy on pCPU 0, two light on pCPU 1."""
    plan = decide(
        estimate_of(
            2, vcpu("h1", 0.6, 0), vcpu("h2", 0.6, 0), vcpu("l1", 0.2, 1), vcpu("l2", 0.2, 1)
        )
    )
    assert len(plan.pins) == 2
    first, second = plan.pins
    assert str(first.reason) == (
        "pCPU 0 is loaded 1.20, pCPU 1 0.40; "
        "swapping its 0.60 with 0.20 of l1/0 evens them to 0.80/0.80"
    )
    assert str(second.reason) == (
        "pCPU 1 is loaded 0.40, pCPU 0 1.20; "
        "swapping its 0.20 with 0.60 of h1/0 evens them to 0.80/0.80"
    )


def test_heavy_and_light_without_homes_pair_up() -> None:
    everywhere = {0, 1}
    assert homes(
        estimate_of(
            2,
            vcpu("h1", 0.6, everywhere),
            vcpu("h2", 0.6, everywhere),
            vcpu("l1", 0.2, everywhere),
            vcpu("l2", 0.2, everywhere),
        )
    ) == {"h1/0": 0, "h2/0": 1, "l1/0": 0, "l2/0": 1}


def test_an_idle_vcpu_gets_no_home() -> None:
    assert decide(estimate_of(2, vcpu("a", 0.02, {0, 1}))).pins == ()


def test_homes_wait_for_settled_demands() -> None:
    young = vcpu("young", 1.0, {0, 1}, settled=False)
    old = vcpu("old", 0.5, {0, 1})
    assert decide(estimate_of(2, old, young)).pins == ()
    assert len(decide(estimate_of(2, replace(old, steady_s=16.0), young)).pins) == 1


@pytest.mark.parametrize(("hogs", "pcpus"), [(3, 2), (5, 4), (1, 4), (4, 4), (3, 4)])
def test_equal_hogs_that_do_not_divide_rest(hogs: int, pcpus: int) -> None:
    assert decide(estimate_of(pcpus, *(vcpu(f"g{i}", 1.0, i % pcpus) for i in range(hogs)))) == (
        CpuPlan()
    )


def test_a_lone_vcpu_is_not_moved_even_to_a_better_pcpu() -> None:
    lone = estimate_of(2, vcpu("a", 0.9, 0), capacity={0: 0.5, 1: 1.0})
    assert decide(lone).pins == ()


def test_an_idle_host_rests() -> None:
    idle = [vcpu(f"g{i}", 0.03 * (i % 2), i // 4) for i in range(8)]
    assert decide(estimate_of(2, *idle)).pins == ()


def test_doubt_spreads_a_crowd_but_does_not_touch_what_is_even() -> None:
    """Two of four launching guests have ended their transient a moment before the others."""
    launching = [vcpu(f"g{i}", 0.37 if i % 2 else 1.0, i % 2, settled=False) for i in range(4)]
    assert decide(estimate_of(2, *launching)).pins == ()
    crowd = [replace(v, affinity=frozenset({0})) for v in launching]
    assert len(decide(estimate_of(2, *crowd)).pins) == 2


def test_a_heap_is_spread_as_one_plan_though_it_takes_two_bursts() -> None:
    """Eight on one of four pCPUs, of whom nothing is seen; then three are served, five are not."""
    heap = [
        replace(vcpu(f"g{i}", 0.03 * (i + 1), 0, run=0.01, settled=False), history=(), starved=True)
        for i in range(8)
    ]
    assert sorted(homes(estimate_of(4, *heap)).values(), key=str) == [0, 0, 1, 1, 2, 2, 3, 3]
    half_way = estimate_of(4, *(vcpu(f"s{i}", 0.37, i) for i in (1, 2, 3)), *heap[:5])
    after = homes(half_way)
    assert sorted(after.values(), key=str) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert [after[f"s{i}/0"] for i in (1, 2, 3)] == [1, 2, 3]


def test_other_work_counts() -> None:
    """Four equal vCPUs, but pCPU 1 has only 0.4 left: three and one."""
    four = [vcpu(f"g{i}", 0.2, i % 2) for i in range(4)]
    after = homes(estimate_of(2, *four, capacity={0: 1.0, 1: 0.4}))
    assert sorted(after.values(), key=str) == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("capacity", "wants", "pins"),
    [
        ((0.78, 0.93), (0.44, 0.40, 0.40, 0.39), 0),
        ((0.77, 0.92), (0.46, 0.44, 0.38, 0.37), 0),
        ((0.79, 0.88), (0.48, 0.43, 0.39, 0.38), 0),
        ((0.78, 0.93), (0.55, 0.40, 0.40, 0.39), 2),
    ],
    ids=["C1", "C2", "C3", "other loads"],
)
def test_vcpus_that_want_alike_do_not_swap_because_other_work_is_uneven(
    capacity: tuple[float, float], wants: tuple[float, ...], pins: int
) -> None:
    """As seen on real guests: in busier company the same program reads up to a quarter more."""
    even = [vcpu(f"g{i}", load, i // 2) for i, load in enumerate(wants)]
    plan = decide(estimate_of(2, *even, capacity=dict(enumerate(capacity))))
    assert len(plan.pins) == pins


def test_vcpus_that_want_alike_swap_to_come_to_their_memory() -> None:
    nodes = Topology(tuple(Pcpu(cpu, cpu, cpu // 2, cpu // 2) for cpu in range(4)))
    full = [vcpu(f"g{i}", 0.4, i // 2) for i in range(8)]
    lost = [
        replace(v, memory_node=1 - i // 4 if i in (0, 4) else i // 4) for i, v in enumerate(full)
    ]
    after = homes(replace(estimate_of(4, *lost), topology=nodes))
    assert (after["g0/0"], after["g4/0"]) == (2, 0)


def test_vcpus_that_want_alike_swap_to_be_apart_from_their_siblings() -> None:
    pairs = [vcpu(name, 0.4, home, index=i) for home, name in enumerate("ab") for i in range(2)]
    after = homes(estimate_of(2, *pairs))
    assert after["a/0"] != after["a/1"]
    assert after["b/0"] != after["b/1"]


def test_the_emptier_core_of_two_empty_pcpus() -> None:
    topology = Topology(tuple(Pcpu(i, i // 2 * 2, 0, 0) for i in range(4)))
    two = [vcpu(name, 0.9, {0, 1, 2, 3}) for name in ("a", "b")]
    after = homes(replace(estimate_of(4, *two), topology=topology))
    assert after == {"a/0": 0, "b/0": 2}


def test_fixed_vcpus_stay_but_count() -> None:
    plan = decide(estimate_of(2, vcpu("a", 1.0, 0, fixed="pinned"), vcpu("b", 0.5, 0)))
    assert [pin.vcpu.uuid for pin in plan.pins] == ["b"]


def test_a_vcpu_goes_only_where_it_is_allowed() -> None:
    crowd = [vcpu(f"g{i}", 0.5, 0, allowed={0, 1}) for i in range(3)]
    assert set(homes(estimate_of(4, *crowd)).values()) == {0, 1}


def test_settings_name_the_field_that_is_wrong() -> None:
    with pytest.raises(ValueError, match="least_gain_ratio must be 0 to 1"):
        Balance.Config(least_gain_ratio=2)
    with pytest.raises(ValueError, match="errors must not be negative"):
        Balance.Config(errors=-1)


@st.composite
def hosts(draw: st.DrawFn) -> CpuEstimate:
    """Any host: some vCPUs pinned, some floating, some fixed, some in doubt, some confined."""
    pcpus = draw(st.integers(1, 6))
    cpus = st.integers(0, pcpus - 1)
    vcpus = [
        vcpu(
            f"g{number}",
            draw(st.floats(0, 1)),
            draw(cpus | st.just(set(range(pcpus)))),
            allowed=draw(st.sets(cpus, min_size=1)),
            fixed=draw(st.sampled_from([None, None, None, "pinned"])),
            settled=draw(st.booleans()),
        )
        for number in range(draw(st.integers(0, 12)))
    ]
    capacity = {cpu: draw(st.floats(0.05, 1)) for cpu in range(pcpus)}
    return estimate_of(pcpus, *vcpus, capacity=capacity)


@given(hosts())
def test_pins_are_single_allowed_cpus_of_movable_vcpus(estimate: CpuEstimate) -> None:
    known = {v.key: v for v in estimate.vcpus}
    plan = decide(estimate)
    for pin in plan.pins:
        assert len(pin.cpus) == 1
        assert pin.cpus <= known[pin.vcpu].allowed
        assert known[pin.vcpu].fixed is None
        assert pin.cpus != known[pin.vcpu].affinity
    assert len({pin.vcpu for pin in plan.pins}) == len(plan.pins)


@given(hosts())
def test_a_plan_that_was_applied_is_not_bettered(estimate: CpuEstimate) -> None:
    assert decide(applied(estimate, decide(estimate))).pins == ()


def test_a_hog_among_many_counts_as_its_fair_share() -> None:
    """P5 in small: hogs 3:1 and nothing idle: entitlements are even, so nothing is to be moved."""
    hogs = [vcpu(f"g{i}", 1.0, i % 2) for i in range(4)]
    light = [vcpu("l0", 0.1, 0), vcpu("l1", 0.1, 1)]
    assert decide(estimate_of(2, *hogs, *light)).pins == ()


def test_weights_decide_who_shares_with_whom() -> None:
    """One guest is owed a whole pCPU; the three light-weighted share the other."""
    great = vcpu("great", 1.0, 0, weight=3.0)
    small = [vcpu(f"s{i}", 1.0, 0 if i == 0 else 1, weight=1.0) for i in range(3)]
    assert homes(estimate_of(2, great, *small)) == {"great/0": 0, "s0/0": 1, "s1/0": 1, "s2/0": 1}


def test_after_broken_promises_more_certainty_is_asked_for() -> None:
    restless = [replace(vcpu(f"g{i}", 0.6, 0), history=(0.4, 0.8, 0.7, 0.5) * 3) for i in range(2)]
    host = estimate_of(2, *restless, vcpu("calm", 0.4, 1))
    wary = Memory(promises=BackOff(until_s=600.0))
    config = Balance.Config(pin="cpu")
    assert len(Balance().decide(wary, host, config, 600.0)[0].pins) == 1
    plan, _ = Balance().decide(wary, host, config, 599.0)
    assert plan.pins == ()
    assert str(plan.considered[0].reason).endswith(
        "(little came of former gains: 2 times the usual certainty is asked)"
    )


@pytest.mark.parametrize("pin", ["cpu", "domain"])
def test_promises_are_remembered_until_they_are_seen_to_be_kept(pin: str) -> None:
    crowd = [vcpu(f"g{i:02}", 0.9, set(range(8)), run=0.7) for i in range(10)]
    if pin == "cpu":
        crowd = [vcpu(f"g{i:02}", 0.6, 0, run=0.3) for i in range(3)]
    host = estimate_of(16, *crowd)
    config = Balance.Config(pin=pin)
    plan, state = Balance().decide(None, host, config, 0.0)
    assert len(state.promises.pending) == 1
    served = tuple(replace(v, run_ratio=v.demand_ratio) for v in applied(host, plan).vcpus)
    for now_s in (3.0, 6.0, 9.0):
        _, state = Balance().decide(state, replace(host, vcpus=served), config, now_s)
    assert state.promises.pending == ()
    assert state.promises.came > 0.5 * state.promises.promised > 0
    assert state.promises.factor(9.0) == 1.0


def test_what_is_not_sure_is_told() -> None:
    bursts = [replace(vcpu(f"g{i}", 1 / 3, 0), history=(*(0.2,) * 5, 1.0) * 2) for i in range(2)]
    plan = decide(estimate_of(2, *bursts, vcpu("calm", 0.2, 1)))
    assert plan.pins == ()
    assert [(pin.vcpu.uuid, pin.cpus, pin.reason.rule) for pin in plan.considered] == [
        ("g0", frozenset({1}), "unsure"),
        ("g1", frozenset({1}), "unsure"),
        ("calm", frozenset({0}), "unsure"),
    ]
