"""The statistics of gains."""

import numpy as np
import pytest
from scipy.stats import t as student

from virtbalance.cpu.trigger import halves, lower_bound


def test_gains_that_do_not_scatter_are_believed() -> None:
    assert lower_bound(np.array([0.02, 0.02, 0.02]), 2.0) == pytest.approx(0.02)


def test_the_example() -> None:
    # standard error 0.006 / sqrt(3) = 0.0035; two errors of two degrees of freedom are 4.0
    assert lower_bound(np.array([0.030, 0.024, 0.036]), 2.0) == pytest.approx(0.0161, abs=2e-4)


@pytest.mark.parametrize("freedom", [2, 3, 5, 11])
def test_few_samples_know_little_of_their_scatter(freedom: int) -> None:
    """As in Student's distribution, to within what the expansion drops."""
    gains = np.array([1.0, -1.0] * 6)[: freedom + 1]
    error = (((gains - gains.mean()) ** 2).sum() / freedom / len(gains)) ** 0.5
    errors = (gains.mean() - lower_bound(gains, 2.0)) / error
    assert errors == pytest.approx(student.isf(student.sf(2.0, 1e9), freedom), rel=0.12)


def test_gains_that_resemble_their_neighbours_count_less() -> None:
    apart = np.array([0.1, 0.3] * 6)
    alike = np.array([0.1] * 6 + [0.3] * 6)
    assert lower_bound(alike, 2.0) < lower_bound(apart, 2.0)


def test_noise_around_nothing_is_not_accepted() -> None:
    random = np.random.default_rng(1)
    accepted = sum(lower_bound(random.normal(0, 0.1, 12), 2.0) > 0 for _ in range(1000))
    assert accepted <= 50


@pytest.mark.parametrize(
    ("samples", "search", "test"),
    [(3, range(3), range(3)), (15, range(15), range(15)), (24, range(12), range(12, 24))],
)
def test_many_samples_are_split(samples: int, search: range, test: range) -> None:
    all_samples = range(samples)
    assert tuple(all_samples[part] for part in halves(samples)) == (search, test)
