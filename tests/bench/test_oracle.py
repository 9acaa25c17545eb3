"""The yardstick: exact where that is possible, and never worse than longest-first."""

from dataclasses import replace

import numpy as np
import pytest

from virtbalance.bench.library import find
from virtbalance.bench.oracle import best_placement, cost, moments
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
