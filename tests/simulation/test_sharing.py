"""The fluid equilibrium against exact answers of queueing theory."""

from math import factorial

import numpy as np
import pytest

from virtbalance.simulation.sharing import Crowd, Layout, Pool, share


def layout(pinned: list[int], pools: list[tuple[list[int], list[int]]], cpus: int) -> Layout:
    return Layout(
        pinned_cpu=np.array(pinned, dtype=np.intp),
        pools=tuple(
            Pool(np.array(mask), np.array(threads), np.ones(len(mask), dtype=np.bool_))
            for mask, threads in pools
        ),
        speed=np.ones(cpus),
        available=np.ones(cpus),
        sibling=np.full(cpus, -1),
        node=np.zeros(cpus, dtype=np.intp),
        slice_s=0.003,
        smt_ratio=0.62,
        remote_slowdown_ratio=0.25,
    )


def loops(duties: list[float], shares: list[float] | None = None) -> Crowd:
    ratio = np.array([(1 - duty) / duty for duty in duties])
    return Crowd(
        closed=np.ones(len(duties), dtype=np.bool_),
        think_ratio=ratio,
        rate=np.zeros(len(duties)),
        work_s=np.where(ratio > 0, 0.01, np.inf),
        think_s=0.01 * ratio,
        shares=np.array(shares or [1.0] * len(duties)),
        guest=np.arange(len(duties)),
        quota=np.full(len(duties), np.inf),
        memory_node=np.full(len(duties), -1),
    )


def runs(crowd: Crowd, places: Layout) -> list[float]:
    run: list[float] = share(crowd, places, np.zeros(len(crowd.rate))).run.tolist()
    return run


def exact(duties: list[float]) -> list[float]:
    """Return run times of loops on one shared server: the product form of its closed network.

    The set S of loops present has probability |S|! x product of work/think, normalised; each of
    them then runs 1/|S| of the time.
    """
    ratios = [duty / (1 - duty) for duty in duties]
    total, result = 0.0, [0.0] * len(duties)
    for subset in range(2 ** len(duties)):
        members = [i for i in range(len(duties)) if subset >> i & 1]
        weight = float(factorial(len(members)))
        for i in members:
            weight *= ratios[i]
        total += weight
        for i in members:
            result[i] += weight / len(members)
    return [value / total for value in result]


@pytest.mark.parametrize(
    "duties",
    [
        [0.5, 0.5],
        [0.37, 0.37],
        [0.6, 0.22],
        [0.5, 0.5, 0.5],
        [0.2, 0.4, 0.6, 0.8],
        [0.1] * 10,
        [0.9, 0.1, 0.1],
        [0.3] * 6,
    ],
)
def test_loops_on_one_cpu_are_within_two_points_of_the_exact_answer(duties: list[float]) -> None:
    found = runs(loops(duties), layout([0] * len(duties), [], 1))
    assert found == pytest.approx(exact(duties), abs=0.02)


def test_a_pool_of_many_cpus_hardly_lets_anyone_wait() -> None:
    """Eight loops of 0.37 on eight pCPUs: more than eight are never present."""
    found = runs(loops([0.37] * 8), layout([-1] * 8, [(list(range(8)), list(range(8)))], 8))
    assert found == pytest.approx([0.37] * 8, abs=0.002)


def test_a_weight_that_cannot_be_used_goes_to_the_others() -> None:
    """Weights 4, 1, 1 on two pCPUs: no thread can use more than one."""
    crowd = loops([1.0, 1.0, 1.0], [4.0, 1.0, 1.0])
    found = runs(crowd, layout([-1] * 3, [([0, 1], [0, 1, 2])], 2))
    assert found == pytest.approx([1.0, 0.5, 0.5], abs=0.01)


def test_pool_threads_keep_away_from_pinned_ones() -> None:
    """Six hogs pinned to pCPU 0; three that may run anywhere take the other three."""
    crowd = loops([1.0] * 9)
    places = layout([0] * 6 + [-1] * 3, [([0, 1, 2, 3], [6, 7, 8])], 4)
    assert runs(crowd, places) == pytest.approx([1 / 6] * 6 + [1.0] * 3, abs=0.001)


def test_overlapping_pools_fill_up_evenly() -> None:
    """Two hogs on {0, 1} and two on {1, 2}: four threads on three pCPUs."""
    crowd = loops([1.0] * 4)
    places = layout([-1] * 4, [([0, 1], [0, 1]), ([1, 2], [2, 3])], 3)
    found = runs(crowd, places)
    assert found == pytest.approx([0.75] * 4, abs=0.02)
