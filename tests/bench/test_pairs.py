"""Contenders in turn on the same guests: order, ratios, and what the command prints."""

import json
import math
import os
import re
import time
from collections.abc import Iterator

import pytest

from virtbalance.bench.library import find
from virtbalance.bench.machine_speed import SpeedProbe
from virtbalance.bench.pairs import Turn, ratio_table, ratios, turns
from virtbalance.bench.schema import Scenario
from virtbalance.bench.statistics import Summary, adjusted, summarize
from virtbalance.bench.sweep import grid, parse_axis
from virtbalance.cli.main import main

TWO = ("--policy", "balance", "--policy", "hold")


def short(name: str, *settings: str) -> Scenario:
    axes = [parse_axis(text) for text in ("duration_s=16", "measure_from_s=6", *settings)]
    (scenario,) = grid(find([name]), axes)
    return scenario


def turn(policy: str, number: int, total: float, least: float, speed: float | None = None) -> Turn:
    return Turn("case", "lab", policy, number, {}, total, least, pins=0, machine_speed=speed)


def test_a_ratio_is_of_turns_of_the_same_round() -> None:
    found = [
        turn("mine", 0, 1.2, 0.30),
        turn("theirs", 0, 1.0, 0.40),
        turn("theirs", 1, 2.0, 0.50),  # a machine twice as fast by now
        turn("mine", 1, 2.2, 0.25),
        turn("mine", 2, 1.0, 0.50),
        turn("theirs", 2, 1.0, 0.50),
        turn("mine", 3, 9.9, 9.99),  # the other one has not had its turn
        turn("mine", 4, 1.1, 0.10),
        turn("theirs", 4, 1.0, 0.0),  # somebody got nothing: no ratio
    ]
    (ratio,) = ratios(found, ["mine", "theirs"])
    assert (ratio.policy, ratio.against, ratio.rounds) == ("mine", "theirs", 4)
    total, least = ratio.total, ratio.least
    assert total is not None
    assert (total.median, total.low, total.high) == pytest.approx((1.1, 1.0, 1.2))
    assert least is not None
    assert least.median == pytest.approx(0.75)
    assert least.count == 3


def test_no_ratio_where_somebody_got_nothing() -> None:
    (ratio,) = ratios([turn("mine", 0, 1.2, 0.3), turn("theirs", 0, 1.0, 0.0)], ["mine", "theirs"])
    assert ratio.least is None
    assert (
        ratio_table([ratio])[1] == "case      mine / theirs  1.200 [1.200, 1.200]            -"
        "                   -                           -      1"
    )


def test_a_faster_machine_is_no_merit() -> None:
    # mine gets a tenth more done at equal speed; work goes with the root of the speed
    speeds = [(50, 40), (40, 50), (50, 50), (30, 50), (45, 40)]
    found = [
        turn(policy, number, total=worth * speed**0.5, least=worth * speed, speed=speed)
        for number, pair in enumerate(speeds)
        for policy, worth, speed in zip(("mine", "theirs"), (1.1, 1.0), pair, strict=True)
    ]
    (ratio,) = ratios(found, ["mine", "theirs"])
    assert ratio.total is not None
    assert ratio.total.low == pytest.approx(1.1 * 0.6**0.5)
    for equal in (ratio.total_at_equal_speed, ratio.least_at_equal_speed):
        assert equal is not None
        assert (equal.median, equal.low, equal.high) == pytest.approx((1.1, 1.1, 1.1))
    (fewer,) = ratios(found[:8], ["mine", "theirs"])
    assert (fewer.rounds, fewer.total_at_equal_speed) == (4, None)


def test_what_differs_at_equal_speed_is_the_interval() -> None:
    logs = [-0.2, -0.1, 0.0, 0.1, 0.2, 0.3, -0.3]
    equal = adjusted([math.exp(log) for log in logs], [1.0] * 7)
    plain = summarize([math.exp(log) for log in logs])
    assert equal is not None
    assert plain is not None
    assert (equal.median, equal.count) == (1.0, 7)
    assert (equal.low, equal.high) == pytest.approx((plain.low, plain.high), rel=0.11)
    assert adjusted([*[1.0] * 5, 0.0], [1.0] * 6) is None  # somebody got nothing
    assert adjusted([*[1.0] * 5, None], [1.0] * 6) == Summary(1.0, 1.0, 1.0, 5)


def test_the_machines_speed_is_measured_and_nobody_else_is_moved() -> None:
    before = os.sched_getaffinity(0)
    with SpeedProbe() as probe:
        deadline_s = time.monotonic() + 30
        speed = None
        while speed is None and time.monotonic() < deadline_s:
            time.sleep(0.05)
            speed = probe.take()
    assert speed is not None
    assert 1 < speed < 1000  # turns of an empty loop in a microsecond
    assert os.sched_getaffinity(0) == before


def test_who_is_first_changes_from_round_to_round() -> None:
    found = list(turns(short("c3/4-on-2/1s"), ["balance", "hold", "none"], 2, "sim"))
    assert [one.policy for one in found] == ["balance", "hold", "none", "none", "hold", "balance"]
    assert [one.round for one in found] == [0, 0, 0, 1, 1, 1]


def test_a_heap_is_worth_what_two_pcpus_are_to_one() -> None:
    found = list(turns(short("c1/4-on-2/1s"), ["balance", "hold"], 2, "sim"))
    # 4 loops of 0.37 on two pCPUs have 1.29 or more done together, on one at most 1.
    assert [one.total < 1.01 for one in found] == [False, True, True, False]
    assert [one.pins for one in found] == [2, 0, 0, 2]
    (ratio,) = ratios(found, ["balance", "hold"])
    assert ratio.total is not None
    assert ratio.total.low > 1.25
    assert ratio.least is not None
    assert ratio.least.low > 1.25


def test_what_changes_nothing_is_worth_nothing() -> None:
    (ratio,) = ratios(
        list(turns(short("c3/4-on-2/1s"), ["balance", "hold"], 2, "sim")), ["balance", "hold"]
    )
    assert ratio.total == ratio.least == Summary(1.0, 1.0, 1.0, 2)


def test_the_command_prints_turns_and_ratios(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "pairs", "bursty", "--policy", "balance", "--policy", "hold", "--pairs", "1"]
    words += ["--set", "duration_s=15", "--set", "measure_from_s=5"]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert re.search(
        r"^bursty/.*  balance  round 0  pins 0  sum \d\.\d+  burst0 \d", text, re.MULTILINE
    )
    assert re.search(r"^bursty/.*  balance / hold  1\.000 \[1\.000, 1\.000\] ", text, re.MULTILINE)
    assert main([*words, "--json"]) == 0
    first, second = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (first["policy"], second["policy"], first["on"]) == ("balance", "hold", "sim")
    assert first["total"] == pytest.approx(sum(first["work"].values()))
    # of the least served guest, which wants at least 0.2 of a pCPU
    assert min(first["work"].values()) / 0.4 < first["least"] <= 1.01


def test_pairs_that_were_had_count_when_interrupted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> Iterator[Turn]:
        yield turn("balance", 0, 1.2, 0.3)
        yield turn("hold", 0, 1.0, 0.3)
        yield turn("hold", 1, 1.0, 0.3)
        raise KeyboardInterrupt

    monkeypatch.setattr("virtbalance.bench.pairs.turns", interrupted)
    assert main(["bench", "pairs", "c1/4-on-2/1s", *TWO]) == 130
    *_, last = capsys.readouterr().out.splitlines()
    assert re.match(r"case +balance / hold +1\.200 .* 1$", last)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["c1/4-on-2/1s"], "pairs needs two policies"),
        (["c1/4-on-2/1s", "--policy", "hold"], "pairs needs two policies"),
        (["m1/small/1s", "--policy", "fair", "--policy", "hold"], "pairs needs two policies"),
        (["p11-excerpt", *TWO], "can't be paired: its guests are made of a trace"),
        (["p2/3-on-2/1s", *TWO, "--set", "duration_s=30"], "measure_from_s is beyond its end"),
    ],
)
def test_what_can_not_be_paired_is_refused(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "pairs", *words]) == 2
    assert message in capsys.readouterr().err
