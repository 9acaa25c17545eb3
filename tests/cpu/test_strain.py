"""What a load costs a core."""

import numpy as np
import pytest

from virtbalance.cpu.strain import Array, strain


def cost(loads: list[float], capacity: list[float]) -> float:
    one_sample: Array = np.array(loads)[:, None]
    return float(strain(one_sample, np.array(capacity))[0])


@pytest.mark.parametrize(
    ("load", "capacity", "expected"),
    [
        (0.0, 0.7, 0.0),
        (0.74, 1.0, 0.0096 + 0.0548),
        (1.0, 1.0, 0.06 - 0.0036 + 0.1),
        (1.11, 1.0, 0.1328 + 0.1232),
        (0.4, 0.8, 0.0088 - 0.0045 + 0.02),
        (1.0, 0.5, 0.5071 - 0.0071 + 0.2),
    ],
)
def test_shortfall_and_headroom_of_a_core_with_one_thread(
    load: float, capacity: float, expected: float
) -> None:
    assert cost([load], [capacity]) == pytest.approx(expected, abs=0.0001)


def test_a_difference_that_nobody_can_know_is_worth_next_to_nothing() -> None:
    def of_two(one: float, other: float) -> float:
        return cost([one], [0.78]) + cost([other], [0.78])

    assert 0 < of_two(0.80, 0.76) - of_two(0.78, 0.78) < 0.002
    assert of_two(0.98, 0.58) - of_two(0.78, 0.78) > 0.1


def test_two_busy_threads_share_what_a_core_gives() -> None:
    # each has 0.62, so 0.38 is missing, and 0.1 / 0.62
    assert cost([1.0, 1.0], [1.0, 1.0]) == pytest.approx(2 * (0.38 + 0.1 / 0.62), abs=0.008)
    assert cost([1.0, 0.0], [1.0, 1.0]) == pytest.approx(0.06 + 0.1, abs=0.004)


def test_a_sibling_counts_once_however_many_wait_there() -> None:
    assert cost([1.0, 5.0], [1.0, 1.0]) - cost([0.0, 5.0], [1.0, 1.0]) == pytest.approx(
        (0.38 + 0.1 / 0.62) + (0.38 + 2.5 * (1 / 0.62 - 1)), abs=0.008
    )


def test_samples_are_kept_apart() -> None:
    loads = np.array([[[0.5, 1.5]]])
    assert strain(loads, np.array([[1.0]])).tolist() == [
        pytest.approx([0.0285, 0.7286], abs=0.0001)
    ]
