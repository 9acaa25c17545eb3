"""More is asked for after two promises that were not kept."""

from dataclasses import replace

import pytest

from tests.cpu.estimates import estimate_of, vcpu
from virtbalance.cpu.backoff import BackOff, expect, review
from virtbalance.cpu.promise import entitlement_now
from virtbalance.model.cpu_estimate import CpuEstimate
from virtbalance.model.guest import VcpuKey
from virtbalance.model.plan import Pin, Reason

AWAY = Pin(VcpuKey("b", 0), frozenset({1}), Reason("test", "test"))
BACK = replace(AWAY, cpus=frozenset({0}))


def host(home_of_b: int = 0, *, missing: float = 0.0, a: float = 0.9) -> CpuEstimate:
    """``a`` 0.9 on pCPU 0, ``c`` 0.5 on pCPU 1, ``b`` 0.4 on either; ``b`` misses out."""
    return estimate_of(
        2,
        vcpu("a", a, 0),
        vcpu("b", 0.4, home_of_b, run=0.4 - missing),
        vcpu("c", 0.5, 1),
    )


def expected(
    state: BackOff, now_s: float, pin: Pin = AWAY, seen: CpuEstimate | None = None
) -> BackOff:
    seen = seen or host()
    return expect(state, seen, entitlement_now(seen), [pin], now_s)


def reviewed(state: BackOff, seen: CpuEstimate, *times_s: float) -> BackOff:
    for now_s in times_s:
        state = review(state, seen, entitlement_now(seen), now_s)
    return state


def disappointed(state: BackOff, now_s: float) -> BackOff:
    """0.30 is promised; 0.20 is still missing after all."""
    times_s = [now_s + after_s for after_s in range(1, 9)]
    return reviewed(expected(state, now_s), host(1, missing=0.2), *times_s)


def test_what_a_plan_promises_is_taken_down() -> None:
    (promised,) = expected(BackOff(), 100.0).pending
    assert promised.pcpus == {0, 1}
    assert promised.gain == pytest.approx(0.3)
    assert promised.owed == pytest.approx(1.8)


def test_a_kept_promise_changes_nothing() -> None:
    state = reviewed(expected(BackOff(), 100.0), host(1, missing=0.1), *range(101, 109))
    assert state == BackOff()


def test_two_disappointments_in_a_row_double_what_is_needed_for_ten_minutes() -> None:
    once = disappointed(BackOff(), 100.0)
    assert (once.disappointments, once.factor(108.0)) == (1, 1.0)
    twice = disappointed(once, 120.0)
    assert [twice.factor(now_s) for now_s in (128.0, 727.9, 728.0)] == [2.0, 2.0, 1.0]


def test_a_kept_promise_in_between_starts_the_count_anew() -> None:
    once = disappointed(BackOff(), 100.0)
    kept = reviewed(expected(once, 120.0), host(1), *range(121, 129))
    assert disappointed(kept, 140.0).factor(148.0) == 1.0


def test_what_the_counters_say_of_the_time_before_the_move_does_not_count() -> None:
    state = reviewed(expected(BackOff(), 100.0), host(1, missing=0.4), 101.0, 101.9)
    assert reviewed(state, host(1), *range(102, 109)).disappointments == 0


def test_going_back_ends_the_wait() -> None:
    state = reviewed(expected(BackOff(), 100.0), host(1, missing=0.3), 102.0, 104.0)
    crowded = estimate_of(2, vcpu("a", 0.4, 0), vcpu("b", 0.4, 1), vcpu("c", 0.9, 1))
    state = expected(state, 105.0, BACK, crowded)
    assert state.disappointments == 1
    assert [e.at_s for e in state.pending] == [105.0]


def test_to_and_fro_is_soon_made_harder() -> None:
    """Whichever pCPU ``b`` is on is the crowded one, as soon as it is there."""
    state, now_s = BackOff(), 100.0
    loads = {0: (0.9, 0.5), 1: (0.5, 0.9)}
    home, moves = 0, 0
    while state.factor(now_s) == 1.0 and moves < 10:
        a, c = loads[home]
        seen = estimate_of(2, vcpu("a", a, 0), vcpu("b", 0.4, home, run=0.1), vcpu("c", c, 1))
        state = expected(state, now_s, replace(AWAY, cpus=frozenset({1 - home})), seen)
        home, moves = 1 - home, moves + 1
        a, c = loads[home]
        seen = estimate_of(2, vcpu("a", a, 0), vcpu("b", 0.4, home, run=0.1), vcpu("c", c, 1))
        state = reviewed(state, seen, now_s + 2, now_s + 4)
        now_s += 5
    assert moves == 3, "the third judges the second"


def test_a_plan_that_was_not_carried_out_is_not_judged() -> None:
    state = reviewed(expected(BackOff(), 100.0), host(0, missing=0.3), 103.0)
    assert state == BackOff()


def test_another_load_is_no_broken_promise() -> None:
    state = expected(BackOff(), 100.0)
    assert reviewed(state, host(1, missing=0.3, a=0.2), 103.0) == BackOff()


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
