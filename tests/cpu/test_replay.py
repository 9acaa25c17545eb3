"""What is known of everybody's demands: as measured, doubted, or guessed at."""

from dataclasses import replace

import pytest

from tests.cpu.estimates import estimate_of, vcpu
from virtbalance.cpu.replay import recorded
from virtbalance.model.cpu_estimate import VcpuEstimate


def starved(name: str, guess: float) -> VcpuEstimate:
    """One of a heap: it ran for 10 ms, and nothing is known of it but that it wants more."""
    one = vcpu(name, guess, 0, run=0.01, settled=False)
    return replace(one, history=(), steady_s=0.0, starved=True)


def test_where_nobody_was_ever_served_all_weigh_the_same() -> None:
    heap = [starved(f"g{i}", guess) for i, guess in enumerate((0.1, 0.2, 0.6))]
    record = recorded(estimate_of(2, *heap))
    assert list(record.entitled.values()) == pytest.approx([0.3, 0.3, 0.3])
    measured, steady, tighter, doubted = record.readings
    for reading in (measured, steady, doubted):
        assert reading == pytest.approx(0.3)
    assert tighter == pytest.approx(0.318)
    assert record.lengths == (3, 3, 3)


def test_a_starved_vcpu_is_taken_for_an_average_one_of_those_that_want_more_than_it_got() -> None:
    known = [vcpu("idle", 0.005, 1), vcpu("one", 0.3, 2), vcpu("two", 0.5, 3)]
    record = recorded(estimate_of(4, *known, starved("heaped", 0.9)))
    wanted = {key.uuid: part for key, part in record.entitled.items()}
    assert wanted == pytest.approx({"heaped": 0.4, "idle": 0.005, "one": 0.3, "two": 0.5})
    assert dict(zip(wanted, record.lengths, strict=True)) == {
        "heaped": 12,
        "idle": 12,
        "one": 12,
        "two": 12,
    }


def test_one_that_was_served_before_is_taken_for_what_it_was() -> None:
    seen = replace(vcpu("seen", 0.6, 0), run_ratio=0.01, starved=True, history=(0.6,) * 3)
    record = recorded(estimate_of(2, seen, vcpu("other", 0.2, 1)))
    assert {key.uuid: part for key, part in record.entitled.items()} == pytest.approx(
        {"seen": 0.6, "other": 0.2}
    )
    assert record.lengths == (12, 3)


def test_young_demands_are_not_guessed_at() -> None:
    young = replace(vcpu("young", 0.6, 0, settled=False), history=(0.6, 0.6))
    assert recorded(estimate_of(2, young, vcpu("old", 0.2, 1))).lengths == (12, 2)
