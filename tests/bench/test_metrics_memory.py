"""Memory metrics by worked examples."""

from dataclasses import replace

import pytest

from tests.bench.recordings import MIB, memory, memory_recording, note
from virtbalance.bench.metrics import computed
from virtbalance.bench.recording import Recording, Taking
from virtbalance.model.guest import RoleName


def value(recording: Recording, name: str) -> float | None:
    return computed(RoleName.MEMORY)[name](recording)


def test_performance_mean_and_worst_five_percent() -> None:
    fast = [memory(500, 100, done_s=float(at)) for at in range(11)]
    slow = [memory(500, 100, done_s=0.5 * at) for at in range(11)]
    recording = memory_recording({"fast": fast, "slow": slow})
    assert value(recording, "performance_mean") == pytest.approx(0.75)
    assert value(recording, "performance_worst") == pytest.approx(0.5)  # 1 of 20 guest-seconds


def test_shortfall_is_missing_to_the_weighted_ideal() -> None:
    # A reserve of 256 leaves 2000 MiB for needs of 1500 and 1000: ideal 1000 and 1000; the first
    # has 700, the second 1300.
    recording = memory_recording(
        {"poor": [memory(700, 1400)] * 3, "rich": [memory(1300, 900)] * 3},
        host_mib=2756,
        other_mib=500,
    )
    assert value(recording, "shortfall_percent") == pytest.approx(100 * 300 / 2000)
    assert value(recording, "envy_mib") == pytest.approx(600.0)
    # 800 MiB lacking for two seconds; 200 MiB beyond 100 of slack lie idle in the other.
    assert value(recording, "unmet_gib_s") == pytest.approx(2 * 800 / 1024)
    assert value(recording, "stranded_gib_s") == pytest.approx(2 * 200 / 1024)
    satisfied = [0.7, 1.0]
    expected = sum(satisfied) ** 2 / (2 * sum(x * x for x in satisfied))
    assert value(recording, "jain") == pytest.approx(expected)


def test_the_ideal_goes_by_weight() -> None:
    recording = memory_recording(
        {"a": [memory(1600, 5000)] * 2, "b": [memory(400, 5000)] * 2},
        host_mib=2256,
        weights={"a": 4.0, "b": 1.0},
    )
    assert value(recording, "shortfall_percent") == pytest.approx(0.0, abs=1e-9)


def test_out_of_memory_seconds_and_when() -> None:
    looks = [memory(500, 800, oom_s=max(0.0, at - 2.0)) for at in range(6)]
    recording = memory_recording({"a": looks})
    assert value(recording, "oom_s") == pytest.approx(3.0)
    assert value(recording, "first_oom_s") == 3.0


def test_the_hosts_reserve_and_what_is_beyond_the_host() -> None:
    recording = memory_recording(
        {"a": [memory(500, 100)] * 4},
        host_mib=16384,
        available_mib=[2000, 819, 820, 0],
        excess_mib=[0, 0, 0, 10],
    )
    # 5 % of 16 GiB is 819.2 MiB.
    assert value(recording, "reserve_breach_s") == 2.0
    assert value(recording, "host_over_s") == 1.0
    assert value(recording, "host_available_mib") == 0.0


def test_time_to_satisfy_a_step() -> None:
    sizes = [600, 600, 600, 700, 900, 1100, 1100, 1100]
    wants = [300, 300, 1000, 1000, 1000, 1000, 1000, 1000]
    looks = [memory(size, want) for size, want in zip(sizes, wants, strict=True)]
    recording = memory_recording({"a": looks})
    # The want rises in the second step; 1000 MiB of room are there at the end of the fifth.
    assert value(recording, "satisfy_p50_s") == 3.0


def test_reductions_are_held_against_what_may_be_taken_at_once() -> None:
    fair = Taking("a", 2000 * MIB, 1900 * MIB, 112 * MIB, 2048 * MIB)  # 100 of 112: 0.9 is 100.8
    hard = Taking("a", 2000 * MIB, 1500 * MIB, 600 * MIB, 2048 * MIB)  # 500 of 600: half is 300
    poor = Taking("a", 1000 * MIB, 990 * MIB, 40 * MIB, 2048 * MIB)
    looks = {"a": [memory(1000, 500)] * 4}

    def after(*takings: Taking) -> Recording:
        return memory_recording(looks, ticks=[replace(note(1.0), takings=takings)])

    assert value(after(fair), "step_excess_mib") == 0.0
    assert value(after(hard), "step_excess_mib") == pytest.approx(200.0)
    assert value(after(fair, hard, poor), "taken_from_poor") == 1
    assert value(after(poor), "starving_shrunk") == 1  # 40 of 1000 is less than 5 %


def test_churn_and_calls_for_each_guest_hour() -> None:
    ticks = [replace(note(1.0), resizes=2)]
    sizes = [500] * 10 + [756] * 10 + [500] * 17
    recording = memory_recording({"a": [memory(size, 100) for size in sizes]}, ticks=ticks)
    assert value(recording, "calls_h") == pytest.approx(200.0)  # 36 s are a hundredth of an hour
    assert value(recording, "churn_gib_h") == pytest.approx(50.0)


def test_sizes_minima_and_programs() -> None:
    recording = memory_recording(
        {
            "a": [memory(300, 100), memory(240, 100), memory(260, 100, program="limit reached")],
            "b": [memory(900, 100), memory(800, 100), memory(800, 100, program="died early")],
        },
        minimum_mib={"a": 256},
    )
    assert value(recording, "smallest_mib") == 240
    assert value(recording, "largest_mib") == 800
    assert value(recording, "below_minimum_s") == 1.0
    assert value(recording, "died_early") == 1
    assert value(recording, "limit_reached") == 1


def test_a_stuck_driver_is_missed_until_it_is_named() -> None:
    looks = [replace(memory(1000, 100), target_kib=500 * MIB) for _ in range(31)]
    silent = [note(float(at)) for at in range(1, 21)]
    named = [replace(note(float(at)), stuck=frozenset({"a"})) for at in range(21, 31)]
    recording = memory_recording({"a": looks}, ticks=[*silent, *named])
    # Ten seconds show that it does not move; missed from the eleventh second to the twentieth.
    assert value(recording, "missed_stuck_s") == 10.0
    assert value(recording, "false_stuck_s") == 0.0


@pytest.mark.filterwarnings("error")
def test_a_guest_that_has_gone_is_not_wrongly_taken_for_stuck() -> None:
    there = [replace(memory(1000, 100), target_kib=500 * MIB) for _ in range(15)]
    named = [replace(note(float(at)), stuck=frozenset({"a"})) for at in range(1, 31)]
    recording = memory_recording(
        {"a": [*there, *[None] * 16], "b": [memory(500, 100)] * 31}, ticks=named
    )
    assert value(recording, "false_stuck_s") == 0.0
    assert value(recording, "missed_stuck_s") == 0.0
