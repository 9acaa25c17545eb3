"""Weighted max-min shares and partitions, by worked examples."""

import numpy as np
import pytest

from virtbalance.bench.sharing import best_partition, entitled, jain, max_min


@pytest.mark.parametrize(
    ("demand", "weight", "capacity", "shares"),
    [
        ([0.2, 0.3], [1, 1], 1.0, [0.2, 0.3]),  # all fits
        ([1, 1, 1], [1, 1, 1], 2.0, [2 / 3, 2 / 3, 2 / 3]),
        ([0.2, 1, 1], [1, 1, 1], 1.4, [0.2, 0.6, 0.6]),  # what the light one leaves is shared
        ([1, 1, 1, 1], [4, 2, 1, 1], 1.6, [0.8, 0.4, 0.2, 0.2]),
        ([1, 1, 1], [8, 1, 1], 2.0, [1, 0.5, 0.5]),  # a weight that can't be used up
        ([3, 3], [1, 1], 0.0, [0, 0]),
    ],
)
def test_weighted_max_min(
    demand: list[float], weight: list[float], capacity: float, shares: list[float]
) -> None:
    result = max_min(np.array(demand, float), np.array(weight, float), capacity)
    assert result == pytest.approx(shares)


def test_what_a_light_vcpu_leaves_stays_in_its_guest_first() -> None:
    # Guest 0 has vCPUs that want 0.1 and 1, guest 1 two hogs; 2 pCPUs: one pCPU each guest.
    owners = np.array([0, 0, 1, 1])
    shares = entitled(np.array([0.1, 1, 1, 1.0]), owners, np.array([1.0, 1.0]), 2.0)
    assert shares == pytest.approx([0.1, 0.9, 0.5, 0.5])


def test_jain() -> None:
    assert jain(np.array([1.0, 1.0, 1.0])) == 1.0
    assert jain(np.array([1.0, 0.0])) == 0.5
    # Three hogs pinned on two pCPUs, as measured in cpu.md.
    assert jain(np.array([0.49, 0.98, 0.49])) == pytest.approx(0.8889, abs=1e-4)


@pytest.mark.parametrize(
    ("loads", "bins", "height"),
    [
        ([0.37] * 8, 4, 0.74),
        ([1.0] * 5, 4, 2.0),
        ([0.9, 0.8, 0.6, 0.5, 0.3, 0.2, 0.1], 4, 0.9),  # 9, 8+1, 6+2, 5+3
        ([3.0, 3, 2, 2, 2], 2, 6.0),  # longest first alone gives 7
        ([], 3, 0.0),
    ],
)
def test_best_partition(loads: list[float], bins: int, height: float) -> None:
    assert best_partition(loads, bins) == pytest.approx(height)
