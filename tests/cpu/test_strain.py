"""What a load costs a core."""

import numpy as np
import pytest

from virtbalance.cpu.strain import Array, strain


def cost(loads: list[float], capacity: list[float]) -> float:
    one_sample: Array = np.array(loads)[:, None]
    return float(strain(one_sample, np.array(capacity))[0])


@pytest.mark.parametrize(
    ("load", "capacity", "expected"),
    [(0.74, 1.0, 0.055), (1.11, 1.0, 0.11 + 0.123), (0.4, 0.8, 0.02), (1.0, 0.5, 0.5 + 0.2)],
)
def test_shortfall_and_headroom_of_a_core_with_one_thread(
    load: float, capacity: float, expected: float
) -> None:
    assert cost([load], [capacity]) == pytest.approx(expected, abs=0.001)


def test_two_busy_threads_share_what_a_core_gives() -> None:
    # each has 0.62: twice 0.38 missing, and 0.1 / 0.62
    assert cost([1.0, 1.0], [1.0, 1.0]) == pytest.approx(2 * (0.38 + 0.1 / 0.62))
    assert cost([1.0, 0.0], [1.0, 1.0]) == pytest.approx(0.1)


def test_a_sibling_counts_once_however_many_wait_there() -> None:
    assert cost([1.0, 5.0], [1.0, 1.0]) - cost([0.0, 5.0], [1.0, 1.0]) == pytest.approx(
        (0.38 + 0.1 / 0.62) + (0.38 + 2.5 * (1 / 0.62 - 1)), rel=1e-6
    )


def test_samples_are_kept_apart() -> None:
    loads = np.array([[[0.5, 1.5]]])
    assert strain(loads, np.array([[1.0]])).tolist() == [pytest.approx([0.025, 0.725])]
