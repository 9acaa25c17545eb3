"""More certainty is asked for after plans of which nothing came."""

from dataclasses import replace

import pytest

from tests.cpu.estimates import estimate_of, vcpu
from virtbalance.cpu.backoff import BackOff, expect, review
from virtbalance.cpu.promise import entitlement_now
from virtbalance.model.cpu_estimate import CpuEstimate
from virtbalance.model.guest import VcpuKey
from virtbalance.model.plan import Pin, Reason

AWAY = Pin(VcpuKey("b", 0), frozenset({1}), Reason("test", "test"))


def host(home_of_b: int = 0, *, missing: float = 0.35, a: float = 0.9) -> CpuEstimate:
    """``a`` 0.9 on pCPU 0, ``c`` 0.5 on pCPU 1, ``b`` 0.4 on either; ``b`` misses out."""
    b = vcpu("b", 0.4, home_of_b, run=0.4 - missing)
    return estimate_of(2, vcpu("a", a, 0), b, vcpu("c", 0.5, 1))


def expected(
    state: BackOff, now_s: float, pin: Pin = AWAY, seen: CpuEstimate | None = None
) -> BackOff:
    seen = seen or host()
    return expect(state, seen, entitlement_now(seen), [pin], now_s)


def reviewed(state: BackOff, seen: CpuEstimate, *times_s: float) -> BackOff:
    for now_s in times_s:
        state = review(state, seen, entitlement_now(seen), now_s)
    return state


def after_a_plan(state: BackOff, now_s: float, missing: float) -> BackOff:
    """0.30 is promised where 0.35 was missing; this is missing afterwards."""
    times_s = [now_s + after_s for after_s in range(1, 9)]
    return reviewed(expected(state, now_s), host(1, missing=missing), *times_s)


def test_what_a_plan_promises_is_taken_down() -> None:
    (promised,) = expected(BackOff(), 100.0).pending
    assert promised.pcpus == {0, 1}
    assert promised.gain == pytest.approx(0.3)
    assert promised.missing == pytest.approx(0.35)
    assert promised.owed == pytest.approx(1.8)


def test_after_two_plans_of_which_nothing_came_twice_as_sure_for_ten_minutes() -> None:
    once = after_a_plan(BackOff(), 100.0, missing=0.33)
    assert once.promised == pytest.approx(0.30)
    assert once.came == pytest.approx(0.02)
    assert once.factor(108.0) == 1.0
    twice = after_a_plan(once, 120.0, missing=0.33)
    assert [twice.factor(now_s) for now_s in (128.0, 727.9, 728.0)] == [2.0, 2.0, 1.0]


def test_one_plan_without_effect_between_good_ones_is_bad_luck() -> None:
    state, now_s = BackOff(), 100.0
    for missing in (0.05, 0.35, 0.10, 0.05, 0.40, 0.05):
        state = after_a_plan(state, now_s, missing)
        now_s += 10
    assert state.factor(now_s) == 1.0
    assert state.pending == ()


def test_great_luck_does_not_outweigh_many_failures() -> None:
    """What comes by itself, here 0.75 where 0.20 was promised, counts at most twice the promise."""
    crowded = estimate_of(2, vcpu("a", 0.8, 0, run=0.4), vcpu("b", 0.4, 0, run=0.05))
    assert expected(BackOff(), 100.0, seen=crowded).pending[0].gain == pytest.approx(0.2)
    relieved = estimate_of(2, vcpu("a", 0.8, 0), vcpu("b", 0.4, 1))
    state = reviewed(expected(BackOff(), 100.0, seen=crowded), relieved, *range(101, 109))
    assert state.came == pytest.approx(0.4)


def test_what_the_counters_say_of_the_time_before_the_move_does_not_count() -> None:
    state = reviewed(expected(BackOff(), 100.0), host(1, missing=0.4), 101.0, 101.9)
    state = reviewed(state, host(1, missing=0.05), *range(102, 109))
    assert state.came == pytest.approx(0.30)


def test_a_long_window_must_lie_behind_the_plan() -> None:
    slow = replace(host(1, missing=0.4), window_s=4.0)
    assert reviewed(expected(BackOff(), 100.0), slow, 103.9).pending[0].missing_since == ()
    seen = reviewed(expected(BackOff(), 100.0), slow, 104.0).pending[0]
    assert seen.missing_since == pytest.approx((0.4,))


def test_to_and_fro_is_soon_made_harder() -> None:
    """Whichever pCPU ``b`` is on is the crowded one, as soon as it is there."""
    state, now_s = BackOff(), 100.0
    loads = {0: (0.9, 0.5), 1: (0.5, 0.9)}
    home, moves = 0, 0

    def seen(home: int) -> CpuEstimate:
        a, c = loads[home]
        b = vcpu("b", 0.4, home, run=0.1)
        return estimate_of(2, vcpu("a", a, 0), b, vcpu("c", c, 1))

    while state.factor(now_s) == 1.0 and moves < 10:
        pin = replace(AWAY, cpus=frozenset({1 - home}))
        state = expected(state, now_s, pin, seen(home))
        home, moves = 1 - home, moves + 1
        state = reviewed(state, seen(home), now_s + 2, now_s + 4)
        now_s += 5
    assert moves == 3, "the third judges the second"


def test_a_plan_that_was_not_carried_out_is_not_judged() -> None:
    assert reviewed(expected(BackOff(), 100.0), host(0), 103.0) == BackOff()


def test_another_load_is_no_broken_promise() -> None:
    assert reviewed(expected(BackOff(), 100.0), host(1, a=0.2), 103.0) == BackOff()


def test_a_guest_that_ended_is_no_broken_promise() -> None:
    seen = host(1)
    gone = replace(seen, vcpus=tuple(v for v in seen.vcpus if v.guest_name != "a"))
    assert reviewed(expected(BackOff(), 100.0), gone, 103.0) == BackOff()


def test_evening_out_where_nobody_falls_short_is_not_judged() -> None:
    roomy = estimate_of(2, vcpu("a", 0.5, 0), vcpu("b", 0.4, 0), vcpu("c", 0.1, 1))
    assert expected(BackOff(), 100.0, seen=roomy) == BackOff()


def test_a_plan_for_other_pcpus_leaves_a_promise_pending() -> None:
    wide = estimate_of(
        4, vcpu("a", 0.9, 0), vcpu("b", 0.4, 0), vcpu("c", 0.9, 2), vcpu("d", 0.4, 2)
    )
    state = expected(BackOff(), 100.0, seen=wide)
    state = expected(state, 103.0, replace(AWAY, vcpu=VcpuKey("d", 0), cpus=frozenset({3})), wide)
    assert [e.pcpus for e in state.pending] == [{0, 1}, {2, 3}]
