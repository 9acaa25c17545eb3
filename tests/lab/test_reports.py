"""Reports, loads and what they are in the program's language."""

import pytest

from virtbalance.lab import Burst, CountAndSleep, CpuLoad, Duty, Hog, LabError, Off
from virtbalance.lab.reports import parse_report

FIGURES = {
    "total_kib": 480284,
    "available_kib": 401552,
    "free_kib": 401884,
    "swap_total_kib": 0,
    "swap_free_kib": 0,
    "ballooned_kib": 262144,
    "oom_kills": 1,
}
ANSWER = {
    "id": 9,
    "ok": True,
    "version": 1,
    "monotonic_ns": 2756042929,
    "cpus": [
        {
            "cpu": cpu,
            "load": "duty",
            "iterations": iterations,
            "wakes": 49,
            "wake_p50_us": 224,
            "wake_p99_us": 2560,
        }
        for cpu, iterations in ((0, 106_662_000), (1, 5))
    ],
    "memory": {
        **FIGURES,
        "outcome": "growing",
        "held_kib": 50428,
        "peak_kib": 50428,
        "kills": 0,
        "failures": 0,
        "at_end": {**FIGURES, "total_kib": 7},
    },
}


def test_a_report_is_read_whole() -> None:
    report = parse_report(ANSWER)
    assert report.monotonic_ns == 2756042929
    assert report.iterations == 106_662_005
    assert report.cpus[0].wake_p99_us == 2560
    assert report.memory.outcome == "growing"
    assert report.memory.held_kib == 50428
    assert report.memory.now.ballooned_kib == 262144
    assert report.memory.at_end.total_kib == 7


def test_the_answer_itself_is_left_as_it_was() -> None:
    parse_report(ANSWER)
    assert parse_report(ANSWER) == parse_report(ANSWER)


def test_a_report_that_lacks_something() -> None:
    for broken in ({}, {**ANSWER, "memory": {}}, {**ANSWER, "cpus": [{"cpu": 0}]}):
        with pytest.raises(LabError, match="report can't be read"):
            parse_report(broken)


@pytest.mark.parametrize(
    ("load", "words"),
    [
        (Off(), "off"),
        (Hog(), "hog"),
        (Duty(37.5), "duty 375000 20000"),
        (Duty(0, period_ms=5), "duty 0 5000"),
        (CountAndSleep(30_000), "count 30000 400"),
        (Burst(5, 0.5), "burst 5000 500"),
    ],
)
def test_loads_in_the_programs_words(load: CpuLoad, words: str) -> None:
    assert load.words() == words
