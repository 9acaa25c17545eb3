"""What is believed of guests: reports, used memory, claims, classes (memory.md, 2 to 4 and 8)."""

import math
from dataclasses import replace
from typing import Any

import pytest

from tests.memory.make import KERNEL_MIB, MIB, START_S, Watcher, guest, sample
from virtbalance.memory.settings import DemandSettings, NeedSettings
from virtbalance.model.guest import GuestDefinition, GuestSettings, GuestState, RoleName
from virtbalance.model.hold import Hold
from virtbalance.model.snapshot import MemorySample


def mib(kib: float) -> int:
    return round(kib / MIB)


def steady(watcher: Watcher, used: float = 300, until_s: int = 3, **about: float) -> None:
    """Let a guest report the same every second, from 0 to ``until_s``."""
    for second in range(until_s + 1):
        watcher.see(second, guest(sample(used, at_s=second, **about)))  # type: ignore[arg-type]


# Used memory


def test_used_is_what_the_balloon_can_not_free_and_cache_is_not() -> None:
    seen = Watcher().see(0, guest(sample(300, cache=150)))
    assert (mib(seen.used_kib), mib(seen.usable_kib), mib(seen.unused_kib)) == (300, 212, 62)


def test_a_balloon_that_moved_since_the_report_does_not_change_what_is_used() -> None:
    watcher = Watcher()
    steady(watcher)
    stale = sample(300, at_s=3)
    watcher.targets["g"] = 400 * MIB
    seen = watcher.see(4, guest(stale._replace(actual_kib=412 * MIB)))
    assert (mib(seen.used_kib), mib(seen.usable_kib)) == (300, 112)


def test_a_new_report_from_the_middle_of_a_move_does_not_change_what_is_used() -> None:
    watcher = Watcher()
    steady(watcher)
    watcher.targets["g"] = 1024 * MIB
    # Written when the balloon was at 600, read when it was at 800.
    late = sample(300, 600, at_s=4)._replace(actual_kib=800 * MIB)
    assert mib(watcher.see(4, guest(late)).used_kib) == 300


def test_a_guest_whose_total_stays_is_read_right_at_rest_and_on_the_move() -> None:
    watcher = Watcher()
    about = GuestDefinition(stats_period_s=1, autodeflate=True)
    for second in range(3):
        here = sample(300, 1024, autodeflate=True, at_s=second)
        assert mib(watcher.see(second, guest(here, definition=about)).used_kib) == 300
    watcher.targets["g"] = 512 * MIB
    # Half-way; the report may be older than the size, so the error must be to the safe side.
    moving = sample(300, 900, autodeflate=True, at_s=3)._replace(actual_kib=800 * MIB)
    assert 300 <= mib(watcher.see(3, guest(moving, definition=about)).used_kib) <= 424
    there = sample(300, 512, autodeflate=True, at_s=4)
    watcher.see(4, guest(there, definition=about))
    there = sample(300, 512, autodeflate=True, at_s=5)
    assert mib(watcher.see(5, guest(there, definition=about)).used_kib) == 300


def test_near_its_maximum_a_guest_shows_its_mode_by_its_first_move() -> None:
    for autodeflate in (False, True):
        watcher = Watcher()
        for second in range(3):
            watcher.see(second, guest(sample(300, 2048, at_s=second, autodeflate=autodeflate)))
        watcher.targets["g"] = 1800 * MIB
        for second in (3, 4):
            there = sample(300, 1800, at_s=second, autodeflate=autodeflate)
            watcher.see(second, guest(there))
        watcher.targets["g"] = 1600 * MIB
        moving = sample(300, 1650, at_s=5, autodeflate=autodeflate)
        seen = watcher.see(5, guest(moving))
        assert abs(mib(seen.used_kib) - 300) <= (150 if autodeflate else 0)


def test_the_mode_shows_even_if_the_balloon_never_rests() -> None:
    watcher = Watcher()
    for second in range(3):
        watcher.see(second, guest(sample(300, 2048, at_s=second)))
    watcher.targets["g"] = 1000 * MIB
    # From here on in motion; the first new report may be from before it began.
    used = [
        mib(watcher.see(second, guest(sample(300, size, at_s=second))).used_kib)
        for second, size in ((3, 1950), (4, 1850), (5, 1750))
    ]
    assert used == [300, 300, 300]
    assert watcher.state is not None
    assert watcher.state.tracks["g"].accounting.mode == "remove"


def test_memory_added_at_run_time_starts_the_reading_anew() -> None:
    watcher = Watcher()
    steady(watcher, actual=2048)
    bigger = sample(300, 4096, 4096, at_s=4)
    watcher.targets["g"] = 4096 * MIB
    watcher.see(4, guest(bigger))
    assert mib(watcher.see(5, guest(bigger._replace(last_update_s=1_800_000_009))).used_kib) == 300


# Reports


@pytest.mark.parametrize(
    "nonsense",
    [
        {"usable_kib": 600 * MIB},
        {"unused_kib": 600 * MIB},
        {"usable_kib": -1},
        {"unused_kib": None},
        {"available_kib": None},
        {"available_kib": 0},
        {"available_kib": 5000 * MIB},
    ],
)
def test_a_report_that_makes_no_sense_is_passed_over(nonsense: dict[str, int | None]) -> None:
    watcher = Watcher()
    steady(watcher)
    absurd = sample(10, at_s=4)._replace(**nonsense)  # type: ignore[arg-type]
    seen = watcher.see(4, guest(absurd))
    assert (mib(seen.used_kib), seen.fixed) == (300, None)
    for second in range(5, 11):
        seen = watcher.see(second, guest(absurd._replace(last_update_s=1_800_000_000 + second)))
    assert seen.fixed is not None
    assert seen.fixed.startswith("it reports")


def test_a_guest_without_usable_is_taken_to_have_only_what_is_free() -> None:
    seen = Watcher().see(0, guest(sample(300, cache=100, usable_kib=None)))
    assert mib(seen.usable_kib) == 112


def test_a_report_ages_by_our_clock_and_not_by_the_guests() -> None:
    watcher = Watcher()
    steady(watcher)
    frozen = guest(sample(300, at_s=3))
    assert watcher.see(8.9, frozen).fixed is None
    assert watcher.see(9.1, frozen).fixed == "its statistics are 6 s old"
    # A guest clock years off is no reason for anything.
    assert watcher.see(10, guest(sample(300, last_update_s=17))).fixed is None


def test_a_late_answer_is_no_news_and_no_ground_to_shrink() -> None:
    watcher = Watcher()
    steady(watcher)
    late = sample(400, at_s=4)._replace(late=True)
    seen = watcher.see(4, guest(late))
    assert (mib(seen.used_kib), seen.growable_only) == (300, "it does not answer in time")


def test_a_report_that_is_not_fresh_is_no_ground_to_shrink() -> None:
    watcher = Watcher()
    steady(watcher)
    old = guest(sample(300, at_s=3))
    classes = [watcher.see(second, old).growable_only for second in (4, 5, 6)]
    assert classes == [None, None, "its statistics are 3 s old"]


# Trend and claims


def test_growth_is_expected_to_go_on() -> None:
    watcher = Watcher()
    for second, used in enumerate([300, 320, 340, 360, 380]):
        seen = watcher.see(second, guest(sample(used, at_s=second)))
    assert seen.slope_kib_s == 20 * MIB
    assert mib(seen.lead_kib) == 80
    assert mib(seen.hard_kib) == 380 + 80 + 100
    assert mib(seen.soft_kib) == 380 + 80 + 128


def test_with_long_ticks_growth_shows_in_the_first_of_them() -> None:
    watcher = Watcher()
    for second, used in ((0, 300), (5, 300), (10, 300), (15, 400)):
        seen = watcher.see(second, guest(sample(used, at_s=second)))
    assert seen.slope_kib_s == 20 * MIB
    assert mib(seen.lead_kib) == 200


def test_with_long_ticks_a_guest_is_left_more_to_start_with() -> None:
    for period_s, room in ((1, 128), (2, 128), (5, 50 + 6 * 20), (10, 50 + 11 * 20)):
        watcher = Watcher()
        for tick in range(3):
            seen = watcher.see(tick * period_s, guest(sample(300, at_s=tick * period_s)))
        assert mib(seen.soft_kib) == 300 + room


def test_one_late_tick_does_not_make_the_period_long() -> None:
    watcher = Watcher()
    steady(watcher)
    late = watcher.whole(63, guest(sample(300, at_s=63)))
    assert late.interval_s == 1.0
    assert mib(late.guests[0].soft_kib) == 428


def test_lead_is_bounded_by_a_quarter_of_the_maximum() -> None:
    watcher = Watcher()
    for second, used in enumerate([300, 1300]):
        seen = watcher.see(second, guest(sample(used, 2048, at_s=second)))
    assert mib(seen.lead_kib) == 512


def test_a_peak_decays_by_half_a_minute() -> None:
    watcher = Watcher()
    watcher.see(0, guest(sample(700, 1024, at_s=0)))
    seen = watcher.see(60, guest(sample(300, 1024, at_s=60)))
    assert mib(seen.peak_kib) == 350


def test_the_end_of_a_load_is_a_large_fall_that_lasts() -> None:
    watcher = Watcher()
    steady(watcher, 1000, actual=1200)
    ended = []
    for second in range(4, 12):
        seen = watcher.see(second, guest(sample(300, 1200, at_s=second)))
        ended.append(seen.load_ended)
    assert ended == [False] * 5 + [True] + [False] * 2
    assert mib(seen.peak_kib) <= 300


def test_a_breath_is_not_the_end() -> None:
    watcher = Watcher()
    steady(watcher, 1000, actual=1200)
    for second, used in enumerate([300, 300, 300, 1000, 300, 300, 300], 4):
        assert not watcher.see(second, guest(sample(used, 1200, at_s=second))).load_ended


def test_a_size_that_hides_the_need_is_escalated() -> None:
    watcher = Watcher()
    for second, used in enumerate([480, 490, 500]):
        seen = watcher.see(second, guest(sample(used, at_s=second)))
    assert mib(seen.hard_kib) == 512 * 1.25 + 40
    standing = Watcher()
    steady(standing, 500)
    assert standing.last is not None
    assert mib(standing.last.guests[0].hard_kib) == 600, "full, but neither growing nor in trouble"


@pytest.mark.parametrize("trouble", [{"swap_in_kib": 2 * MIB}, {"major_faults": 60}])
def test_swapping_in_and_heavy_faulting_are_pressure(trouble: dict[str, Any]) -> None:
    watcher = Watcher()
    steady(watcher, 500)
    seen = watcher.see(4, guest(sample(500, at_s=4, **trouble)))
    assert seen.pressure
    assert mib(seen.hard_kib) == 640
    assert not watcher.see(5, guest(sample(500, at_s=5, **trouble))).pressure


def test_cache_counts_only_for_the_bonus() -> None:
    seen = Watcher().see(0, guest(sample(300, 1024, cache=600)))
    assert (mib(seen.hard_kib), mib(seen.soft_kib)) == (400, 428)
    assert mib(seen.cache_kib) == 900 + 102


def test_claims_stay_between_minimum_and_maximum() -> None:
    seen = Watcher().see(0, guest(sample(100)))
    assert mib(seen.minimum_kib) == mib(seen.hard_kib) == mib(seen.soft_kib) == 256
    seen = Watcher().see(0, guest(sample(2000, 2048)))
    assert mib(seen.hard_kib) == mib(seen.soft_kib) == mib(seen.cache_kib) == 2048


def test_owners_limits_count() -> None:
    wants = GuestSettings(minimum_kib=160 * MIB, maximum_kib=450 * MIB, weight=3)
    seen = Watcher().see(0, guest(sample(400), settings=wants))
    assert (mib(seen.minimum_kib), mib(seen.maximum_kib), seen.weight) == (160, 450, 3)
    assert mib(seen.hard_kib) == 450


def test_the_default_minimum_of_a_large_guest_is_a_tenth() -> None:
    assert mib(Watcher().see(0, guest(sample(300, 8192, 16384))).minimum_kib) == 1638
    assert mib(Watcher().see(0, guest(sample(100, 192, 192))).minimum_kib) == 192


# Classes


def test_a_guest_is_managed_after_three_reports() -> None:
    watcher = Watcher()
    classes = [watcher.see(s, guest(sample(300, at_s=s))).growable_only for s in range(3)]
    assert classes == ["it has reported 1 of 3 times", "it has reported 2 of 3 times", None]


def test_a_guest_that_starts_meanwhile_is_spared_for_half_a_minute() -> None:
    watcher = Watcher()
    old = guest(sample(300), "a")
    watcher.see(0, old)
    for second in range(1, 33):
        seen = watcher.whole(second, guest(sample(300, at_s=second), "b")).guests[0]
        assert (seen.growable_only is not None) == (second < 31)


def test_a_restarted_guest_is_new_again() -> None:
    watcher = Watcher()
    steady(watcher, 500)
    seen = watcher.see(4, guest(sample(200, at_s=4), incarnation="2"))
    assert seen.growable_only == "it started less than 30 s ago"
    assert mib(seen.peak_kib) == 200


@pytest.mark.parametrize(
    ("about", "why"),
    [
        ({"settings": GuestSettings(exclude=frozenset({RoleName.MEMORY}))}, "excluded"),
        ({"definition": GuestDefinition(balloon=False)}, "no balloon device"),
        ({"definition": GuestDefinition(unswappable="locked memory")}, "locked"),
        ({"state": GuestState.PAUSED}, "paused"),
    ],
)
def test_who_is_fixed_and_charged_for_all_it_has(about: dict[str, object], why: str) -> None:
    watcher = Watcher()
    seen = watcher.see(0, guest(sample(300), **about))  # type: ignore[arg-type]
    assert seen.fixed is not None
    assert why in seen.fixed
    assert mib(seen.charge_kib) == 512


def test_a_guest_under_a_job_is_fixed_until_it_is_over() -> None:
    watcher = Watcher()
    steady(watcher)
    leaving = replace(guest(sample(300, at_s=4)), has_job=True)
    assert watcher.see(4, leaving).fixed == "it is being migrated, dumped or saved"
    assert watcher.see(5, guest(sample(300, at_s=5))).fixed is None


@pytest.mark.parametrize(("word", "squeezable"), [(None, True), (True, True), (False, False)])
def test_the_owner_knows_better_than_its_counters_whether_a_guest_has_swap(
    word: bool | None, squeezable: bool
) -> None:
    watcher = Watcher()
    about = GuestSettings(swap=word)
    swapped = sample(300, swap_out_kib=100)
    assert watcher.see(0, guest(swapped, settings=about)).swaps is squeezable
    assert Watcher().see(0, guest(sample(300), settings=about)).swaps is (word is True)


def test_a_stopped_guest_has_no_memory() -> None:
    assert Watcher().whole(0, guest(sample(300), state=GuestState.STOPPED)).guests == ()


def test_a_guest_that_never_reports_has_no_driver() -> None:
    watcher = Watcher()
    silent = guest(MemorySample(2048 * MIB, 2048 * MIB, last_update_s=0))
    assert watcher.see(0, silent).fixed is None
    assert watcher.see(59, silent).growable_only is not None
    assert watcher.see(60, silent).fixed == "no balloon driver reports"


def test_a_guest_whose_answer_is_missing_is_still_charged() -> None:
    watcher = Watcher()
    steady(watcher)
    assert mib(watcher.see(4, guest(None)).actual_kib) == 512
    for second in range(5, 10):
        seen = watcher.see(second, guest(None))
    assert seen.fixed == "its statistics are 6 s old"
    assert mib(seen.charge_kib) == 512


def test_a_held_guest_may_only_grow_and_a_released_one_is_fixed() -> None:
    watcher = Watcher(holds={"g": Hold(START_S + 10, "changed by somebody else")})
    steady(watcher)
    assert watcher.last is not None
    assert watcher.last.guests[0].growable_only == "changed by somebody else"
    watcher.holds = {"g": Hold(math.inf, "left alone")}
    assert watcher.see(4, guest(sample(300, at_s=4))).fixed == "left alone"
    watcher.holds = {"g": Hold(START_S + 4, "over")}
    seen = watcher.see(5, guest(sample(300, at_s=5)))
    assert (seen.fixed, seen.growable_only) == (None, None)


# Stuck drivers


def test_a_balloon_that_does_not_move_is_stuck_and_tried_again_more_and_more_rarely() -> None:
    watcher = Watcher()
    steady(watcher)
    watcher.targets["g"] = 400 * MIB
    stuck = []
    for second in range(4, 200):
        seen = watcher.see(second, guest(sample(300, at_s=second)))
        stuck.append(seen.stuck)
        # As the guard would: back to where it is, and another try when it may.
        watcher.targets["g"] = (512 if seen.stuck else 400) * MIB
    changes = [i + 4 for i in range(1, len(stuck)) if stuck[i] != stuck[i - 1]]
    assert changes[0] == 10
    waits = [end - begin for begin, end in zip(changes[::2], changes[1::2], strict=False)]
    assert waits == [30, 60]


def stuck_on_the_way() -> Watcher:
    """Return the watcher of a guest that was told to shrink to 400 MiB and never did."""
    watcher = Watcher()
    steady(watcher)
    watcher.targets["g"] = 400 * MIB
    for second in range(4, 12):
        seen = watcher.see(second, guest(sample(300, at_s=second)))
    assert seen.stuck
    return watcher


def test_a_completed_move_clears_the_record() -> None:
    watcher = stuck_on_the_way()
    for second, actual in ((45, 512), (46, 450), (47, 400), (48, 400)):
        watcher.see(second, guest(sample(300, actual, at_s=second)))
    assert failures(watcher) == 0


def test_so_does_a_move_that_begins_and_ends_between_two_looks() -> None:
    watcher = stuck_on_the_way()
    watcher.targets["g"] = 512 * MIB
    watcher.see(44, guest(sample(300, at_s=44)))
    assert failures(watcher) == 1, "a target taken back is no move"
    watcher.see(45, guest(sample(300, at_s=45), state=GuestState.PAUSED))
    watcher.see(46, guest(sample(300, at_s=46)))
    assert failures(watcher) == 1, "nor is a pause"
    watcher.targets["g"] = 400 * MIB
    watcher.see(47, guest(sample(300, 400, at_s=47)))
    assert failures(watcher) == 0


def failures(watcher: Watcher) -> int:
    assert watcher.state is not None
    return watcher.state.tracks["g"].motion.failures


def test_a_slow_driver_is_no_stuck_one() -> None:
    watcher = Watcher()
    steady(watcher)
    watcher.targets["g"] = 400 * MIB
    for second in range(4, 50):
        here = sample(300, 512 - 2.3 * (second - 4), at_s=second)
        assert not watcher.see(second, guest(here)).stuck


def test_a_crawling_driver_is_a_stuck_one() -> None:
    watcher = Watcher()
    steady(watcher)
    watcher.targets["g"] = 400 * MIB
    seen = [
        watcher.see(second, guest(sample(300, 512 - 0.6 * (second - 4), at_s=second))).stuck
        for second in range(4, 40)
    ]
    assert seen[-1]


def test_a_paused_guest_is_not_stuck() -> None:
    watcher = Watcher()
    steady(watcher)
    watcher.targets["g"] = 400 * MIB
    for second in range(4, 60):
        watcher.see(second, guest(sample(300, at_s=3), state=GuestState.PAUSED))
    seen = watcher.see(61, guest(sample(300, at_s=61)))
    assert not seen.stuck


# Settings


def test_settings_out_of_range_are_named() -> None:
    with pytest.raises(ValueError, match="lead_s must be 0 to 60, got 61"):
        NeedSettings(lead_s=61)


def test_every_figure_can_be_set() -> None:
    settings = DemandSettings(need=NeedSettings(headroom_kib=200 * MIB, comfort_kib=300 * MIB))
    seen = Watcher(settings).see(0, guest(sample(300)))
    assert (mib(seen.hard_kib), mib(seen.soft_kib)) == (500, 600)


def test_kernels_part_is_what_the_examples_say() -> None:
    here = sample(312)
    assert here.available_kib == (512 - KERNEL_MIB) * MIB
