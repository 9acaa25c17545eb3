"""Somebody else changed our value: hold a minute, let go at the second time."""

import math

from virtbalance.control.ownership import ForeignChange, Ownership, yield_to


def change(subject: str = "a/0", seen: int = 7) -> ForeignChange[str, int]:
    return ForeignChange("a", "web", subject, seen, f"{subject} is {seen}")


def test_a_foreign_value_is_accepted_and_the_guest_held_for_60_s() -> None:
    ownership = Ownership[str, int]().set_by_us("a/0", 1, certain=True)
    ownership, events = yield_to(ownership, [change()], now_s=100.0)
    assert ownership.settled("a/0") == 7
    assert ownership.holds["a"].until_s == 160.0
    assert [event.kind for event in events] == ["foreign-change"]
    assert ownership.expire(159.9).holds
    assert not ownership.expire(160.0).holds


def test_a_second_change_within_10_minutes_releases_the_guest_for_good() -> None:
    ownership, _ = yield_to(Ownership[str, int](), [change()], now_s=0.0)
    ownership, events = yield_to(ownership.expire(600.0), [change()], now_s=600.0)
    assert ownership.holds["a"].until_s == math.inf
    assert [event.kind for event in events] == ["guest-released"]


def test_a_second_change_after_10_minutes_is_a_first_one_again() -> None:
    ownership, _ = yield_to(Ownership[str, int](), [change()], now_s=0.0)
    ownership, _ = yield_to(ownership.expire(601.0), [change()], now_s=601.0)
    assert ownership.holds["a"].until_s == 661.0


def test_two_vcpus_changed_at_once_are_one_conflict() -> None:
    ownership, events = yield_to(Ownership[str, int](), [change("a/0"), change("a/1")], now_s=5.0)
    assert len(events) == 1
    assert ownership.holds["a"].until_s == 65.0


def test_a_late_call_leaves_two_values_that_are_ours() -> None:
    ownership = Ownership[str, int]().set_by_us("a/0", 1, certain=True)
    ownership = ownership.set_by_us("a/0", 2, certain=False)
    assert ownership.ours["a/0"] == (1, 2)
    assert ownership.set_by_us("a/0", 3, certain=True).ours["a/0"] == (3,)
