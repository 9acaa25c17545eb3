"""Loops and arrivals are told apart by what waiting does to them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtbalance.cpu.elasticity import Elasticity


def after(*moments: tuple[float, float]) -> Elasticity:
    known = Elasticity()
    for run, wait in moments:
        known = known.seen(run, wait)
    return known


ALONE = (0.5, 0.0)


def test_a_closed_loop_until_shown_otherwise() -> None:
    assert Elasticity().theta == 1.0
    assert after(*[(0.5, 0.3)] * 50).theta == 1.0  # never seen alone


def test_a_loop_beside_a_hog_stays_one() -> None:
    assert after(ALONE, *[(1 / 3, 1 / 3)] * 50).theta == pytest.approx(1.0)


def test_arrivals_that_run_the_same_become_inelastic() -> None:
    # with the prior: 0.72 / (0.72 + 24 x 0.09), a little more as evidence is forgotten
    assert after(ALONE, *[(0.5, 0.3)] * 24).theta == pytest.approx(0.27, abs=0.01)


def test_who_is_hardly_idle_tells_nothing() -> None:
    assert after(ALONE, *[(0.5, 0.45)] * 50).theta == 1.0


def test_a_change_of_demand_forgets_the_level_but_not_the_nature() -> None:
    arrivals = after(ALONE, *[(0.5, 0.3)] * 24)
    assert arrivals.changed().theta == arrivals.theta
    assert arrivals.changed().seen(0.2, 0.3) == arrivals.changed()


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1))))
def test_it_is_a_share(moments: list[tuple[float, float]]) -> None:
    assert 0 <= after(*moments).theta <= 1
