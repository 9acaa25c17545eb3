"""The CPU baselines against examples worked by hand."""

import pytest

from tests.bench.estimates import cpu, guests, homes
from virtbalance.bench.baselines.cpu import CPU_BASELINES
from virtbalance.bench.baselines.cpu.greedy import Greedy
from virtbalance.bench.baselines.cpu.lpt import Lpt
from virtbalance.bench.baselines.cpu.lpt_5 import Lpt5
from virtbalance.bench.baselines.cpu.lpt_10 import Lpt10
from virtbalance.bench.baselines.cpu.none import NoPins
from virtbalance.bench.baselines.cpu.one_move import OneMove
from virtbalance.bench.baselines.cpu.round_robin import RoundRobin
from virtbalance.bench.baselines.cpu.threshold import Threshold
from virtbalance.cpu.policy import CpuPolicy
from virtbalance.model.cpu_estimate import CpuEstimate


def once(policy: CpuPolicy, estimate: CpuEstimate) -> dict[str, int]:
    plan, _ = policy.decide(None, estimate, None, 0.0)
    return homes(plan)


def test_they_are_found_under_their_names() -> None:
    assert sorted(CPU_BASELINES) == [
        "greedy",
        "lpt",
        "lpt-10",
        "lpt-5",
        "none",
        "one-move",
        "round-robin",
        "threshold",
    ]


@pytest.mark.parametrize("policy", CPU_BASELINES.values(), ids=CPU_BASELINES.keys())
def test_without_guests_they_do_nothing(policy: type[CpuPolicy]) -> None:
    plan, _ = policy().decide(None, cpu(4), None, 0.0)
    assert plan.pins == ()


# none


def test_none_clears_pins_once() -> None:
    estimate = cpu(2, (0.5, 0), (0.5, None))
    plan, state = NoPins().decide(None, estimate, None, 0.0)
    assert [(pin.vcpu.uuid, pin.cpus) for pin in plan.pins] == [("a", frozenset({0, 1}))]
    plan, state = NoPins().decide(state, estimate, None, 1.0)
    assert plan.pins == ()
    plan, _ = NoPins().decide(state, cpu(2, (0.5, 0), (0.5, 1), (0.5, 1)), None, 2.0)
    assert [pin.vcpu.uuid for pin in plan.pins] == ["c"]


# threshold


def test_threshold_maps_vcpu_j_of_every_guest_to_pcpu_j() -> None:
    estimate = guests(2, [(0.5, None)] * 3, [(0.5, None)])
    assert once(Threshold(), estimate) == {"a": 0, "a1": 1, "a2": 0, "b": 0}


def test_threshold_may_count_on_from_guest_to_guest() -> None:
    estimate = guests(2, [(0.5, None)], [(0.5, None)], [(0.5, None)] * 2)
    plan, _ = Threshold().decide(None, estimate, Threshold.Config(count_on=True), 0.0)
    assert homes(plan) == {"a": 0, "b": 1, "c": 0, "c1": 1}


def test_threshold_swaps_busiest_and_freest() -> None:
    """Averages 0.6, 0.3, 0.1: everything on 0 and 2 changes places."""
    estimate = cpu(3, (0.8, 0), (0.4, 0), (0.3, 1), (0.1, 2))
    plan, state = Threshold().decide(4, estimate, None, 0.0)
    assert homes(plan) == {"a": 2, "b": 2, "d": 0}
    assert state == 4


def test_threshold_rests_below_half() -> None:
    plan, _ = Threshold().decide(3, cpu(3, (0.49, 0), (0.49, 0), (0.1, 2)), None, 0.0)
    assert plan.pins == ()


def test_threshold_reads_a_crowded_pcpu_as_idle() -> None:
    """Eight hogs on pCPU 0 read 0.125 each: nothing is done, though three pCPUs idle."""
    plan, _ = Threshold().decide(8, cpu(4, *[(0.125, 0)] * 8), None, 0.0)
    assert plan.pins == ()


def test_threshold_moves_a_lone_busy_vcpu_for_ever() -> None:
    home, seen = 0, []
    for _ in range(4):
        plan, _ = Threshold().decide(1, cpu(2, (0.9, home)), None, 0.0)
        home = homes(plan)["a"]
        seen.append(home)
    assert seen == [1, 0, 1, 0]


def test_threshold_maps_anew_when_the_number_of_guests_changes() -> None:
    plan, _ = Threshold().decide(3, cpu(2, (0.9, 1), (0.1, 1)), None, 0.0)
    assert homes(plan) == {"a": 0, "b": 0}


# round-robin


def test_round_robin_deals_once() -> None:
    estimate = cpu(2, (0.9, None), (0.1, None), (0.5, None))
    plan, state = RoundRobin().decide(None, estimate, None, 0.0)
    assert homes(plan) == {"a": 0, "b": 1, "c": 0}
    plan, state = RoundRobin().decide(state, cpu(2, (0.1, 0), (0.9, 0), (0.5, 0)), None, 1.0)
    assert plan.pins == ()
    plan, _ = RoundRobin().decide(state, cpu(2, (0.1, 0), (0.9, 0)), None, 2.0)
    assert homes(plan) == {"b": 1}


# lpt and its variants


def test_lpt_places_the_longest_first() -> None:
    """0.9 to 0; 0.7 to 1; 0.6 to 1 would be 1.3, to 0 1.5: so 1; 0.5 to 0; 0.2 to 1."""
    estimate = cpu(2, (0.2, None), (0.9, None), (0.5, None), (0.7, None), (0.6, None))
    assert once(Lpt(), estimate) == {"b": 0, "d": 1, "e": 1, "c": 0, "a": 1}


def test_lpt_starts_from_scratch_and_so_renames_pcpus() -> None:
    """The same even partition with the pCPUs the other way round: all four move."""
    estimate = cpu(2, (0.6, 1), (0.2, 1), (0.5, 0), (0.3, 0))
    assert once(Lpt(), estimate) == {"a": 0, "b": 0, "c": 1, "d": 1}


def test_lpt_10_wants_more_than_a_tenth_of_the_mean() -> None:
    """Mean 0.8. Loads 0.9/0.7: deviation 0.1 falls to 0 by lpt's 0.8/0.8: 0.1 > 0.08."""
    uneven = cpu(2, (0.6, 0), (0.3, 0), (0.5, 1), (0.2, 1))
    assert once(Lpt10(), uneven) == {"b": 1, "d": 0}
    # Loads 0.85/0.75: deviation 0.05 is not enough.
    nearly = cpu(2, (0.55, 0), (0.3, 0), (0.5, 1), (0.25, 1))
    assert once(Lpt10(), nearly) == {}


def test_lpt_10_places_those_who_have_no_place() -> None:
    assert once(Lpt10(), cpu(2, (0.4, None), (0.4, 0))) == {"a": 0, "b": 1}


def test_lpt_5_acts_on_unevenness_alone() -> None:
    """Loads 0.9 and 0.3 of two vCPUs can't become even: it swaps the names for ever."""
    assert once(Lpt5(), cpu(2, (0.3, 0), (0.9, 1))) == {"a": 1, "b": 0}
    # 0.82/0.78: deviation 0.02 is 2.5 % of the mean.
    assert once(Lpt5(), cpu(2, (0.52, 0), (0.3, 0), (0.5, 1), (0.28, 1))) == {}


# greedy


def test_greedy_pushes_while_that_narrows_the_gap() -> None:
    """1.5/0: moving 0.5 leaves 1.0/0.5, gap 0.5; another 0.5 the same: not 2 % better."""
    assert once(Greedy(), cpu(2, (0.5, 0), (0.5, 0), (0.5, 0))) == {"a": 1}


def test_greedy_swaps_where_that_is_better() -> None:
    """1.2/0.8: 0.6 for 0.4 makes 1.0/1.0; a push of 0.6 would make 0.6/1.4."""
    assert once(Greedy(), cpu(2, (0.6, 0), (0.6, 0), (0.4, 1), (0.4, 1))) == {"a": 1, "c": 0}


def test_greedy_leaves_a_lone_busy_vcpu_alone() -> None:
    assert once(Greedy(), cpu(2, (0.9, 0))) == {}


def test_greedy_places_newcomers_on_the_coolest() -> None:
    assert once(Greedy(), cpu(2, (0.9, 0), (0.4, None), (0.3, None))) == {"b": 1, "c": 1}


# one-move


def test_one_move_moves_the_largest_of_the_busiest() -> None:
    assert once(OneMove(), cpu(3, (0.5, 0), (0.7, 0), (0.6, 1), (0.2, 2))) == {"b": 2}


def test_one_move_rests_within_ten_points_and_with_a_lone_vcpu() -> None:
    assert once(OneMove(), cpu(2, (0.3, 0), (0.2, 0), (0.41, 1))) == {}
    assert once(OneMove(), cpu(2, (0.9, 0), (0.1, 1))) == {}
