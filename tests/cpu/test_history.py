"""When a vCPU's demand has changed, and when it has only strayed."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtbalance.cpu.history import ESTABLISHED, Level, extend, fits, mean

SLOT_NS = 500_000_000
KEEP = 24


def followed(demands: Iterable[float], level: Level | None = None) -> Level:
    level = level or Level()
    for number, demand in enumerate(demands):
        level = extend(level, demand, number * SLOT_NS, KEEP)
    return level


def test_small_departures_leave_the_level_as_it_is() -> None:
    level = followed([0.37, 0.40, 0.35, 0.38] * 5)
    assert len(level.demands) == 20
    assert (level.since_ns, level.above, level.below) == (0, 0.0, 0.0)


def test_the_example_of_the_module() -> None:
    once = followed([0.37] * 4 + [0.58])
    assert len(once.demands) == 5
    assert once.above == pytest.approx(5.5)
    twice = extend(once, 0.58, 5 * SLOT_NS, KEEP)
    assert (twice.demands, twice.since_ns) == ((0.58,), 5 * SLOT_NS)


def test_a_young_level_is_given_up_at_once() -> None:
    assert followed([0.1] * (ESTABLISHED - 1) + [0.9]).demands == (0.9,)


def test_an_outlier_does_not_end_what_has_held_for_long() -> None:
    level = followed([*[0.1] * ESTABLISHED, 0.9, *[0.1] * 4])
    assert len(level.demands) == ESTABLISHED + 5
    assert level.since_ns == 0
    assert fits(level, 0.1)


def test_a_change_that_lasts_ends_it_with_the_second_demand() -> None:
    once = followed([*[0.1] * ESTABLISHED, 0.9])
    assert not fits(once, 0.9)
    twice = extend(once, 0.9, (ESTABLISHED + 1) * SLOT_NS, KEEP)
    assert (twice.demands, twice.since_ns) == ((0.9,), (ESTABLISHED + 1) * SLOT_NS)
    back = followed([*[0.9] * ESTABLISHED, 0.1, 0.1])
    assert back.demands == (0.1,)


def test_a_restless_vcpu_is_not_always_beginning_anew() -> None:
    restless = followed([0.1, 0.6, 0.2, 0.7, 0.1, 0.5] * 6)
    assert len(restless.demands) >= ESTABLISHED


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60))
def test_a_level_is_made_of_the_newest_demands(demands: list[float]) -> None:
    level = followed(demands)
    assert 1 <= len(level.demands) <= KEEP
    assert level.demands == tuple(demands[-len(level.demands) :])
    assert 0 <= mean(level.demands) <= 1
    assert level.since_ns <= (len(demands) - 1) * SLOT_NS
