"""The yardstick: exact where that is possible, and never worse than longest-first."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from virtbalance.bench.library import find
from virtbalance.bench.oracle import best_placement, cost, least_cost, moments
from virtbalance.bench.results import Job
from virtbalance.bench.runner import run


def test_it_puts_together_what_peaks_at_different_times() -> None:
    early, late = [1.0, 0.0], [0.0, 1.0]
    demand = np.array([early, early, late, late]).T
    place = best_placement(demand, np.array([1.0, 1.0]))
    assert cost(demand, np.array([1.0, 1.0]), place) == pytest.approx(0.01)
    assert place[0] != place[1]
    assert place[2] != place[3]


def test_it_finds_the_split_that_longest_first_misses() -> None:
    demand = np.array([[3.0, 3.0, 2.0, 2.0, 2.0]]) / 6
    place = best_placement(demand, np.array([1.0, 1.0]))
    loads = np.bincount(place, weights=demand[0])
    assert loads.tolist() == pytest.approx([1.0, 1.0])


def test_a_faster_pcpu_gets_more() -> None:
    demand = np.array([[0.5, 0.5, 0.5]])
    place = best_placement(demand, np.array([1.0, 0.5]))
    assert np.bincount(place).tolist() == [2, 1]


def test_moments_are_means_over_equal_parts() -> None:
    demand = np.arange(48.0).reshape(48, 1)
    assert moments(demand)[:2, 0].tolist() == [0.5, 2.5]


def test_nothing_costs_less_than_all_of_it_spread_like_water() -> None:
    capacity = np.array([1.0, 1.0])
    demand = np.array([[0.9, 0.9, 0.6], [0.2, 0.2, 0.2]])
    # 2.4 of 2 is over in half of the time; the mean is 1.5 on 2 pCPUs
    assert least_cost(demand, capacity) == pytest.approx(0.2 + 0.01 * 0.75)
    assert cost(demand, capacity, best_placement(demand, capacity)) >= 0.2075
    one_heavy = np.array([[0.9, 0.1]])
    assert least_cost(one_heavy, capacity) == pytest.approx(0.009)


def test_what_can_be_noticeably_better_is_solved() -> None:
    draws = np.random.default_rng(7)
    capacity = np.ones(3)
    for _ in range(5):
        demand = draws.uniform(0.2, 0.8, (4, 6))
        place = best_placement(demand, capacity)
        every = [cost(demand, capacity, np.array(p)) for p in product(range(3), repeat=6)]
        assert cost(demand, capacity, place) <= min(every) + 1e-4


def test_nobody_static_delivers_more() -> None:
    (scenario,) = find(["c5/16-on-8/1s"])
    shuffled = replace(scenario, guests=tuple(sorted(scenario.guests, key=lambda g: str(g.load))))
    done = {
        policy: run(Job(shuffled, policy, 0)).result.metrics["throughput_ratio"]
        for policy in ("oracle", "round-robin")
    }
    assert done["oracle"] is not None
    assert done["round-robin"] is not None
    assert done["oracle"] > done["round-robin"] + 0.02
