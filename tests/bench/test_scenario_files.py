"""Scenario files: what they may say, and that every mistake is named with its place."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from virtbalance.bench.criteria import check_criteria
from virtbalance.bench.expressions import ExpressionError, evaluate
from virtbalance.bench.library import built_in, find
from virtbalance.bench.reading import read_scenarios, scenarios_of
from virtbalance.bench.runner import program_settings
from virtbalance.bench.schema import LoopLoad, NoiseLoad, Scenario
from virtbalance.bench.sweep import grid, parse_axis
from virtbalance.control.config import ConfigError

PLAIN = """
title = "two guests"
role = "cpu"
duration_s = 10
[host]
pcpus = 2
[[guests]]
count = 2
load = { kind = "hog" }
"""


def scenarios(text: str) -> tuple[Scenario, ...]:
    return scenarios_of(tomllib.loads(text), "case", "case.toml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2 * n - 2", 6),
        ("duties[i % 2]", 0.2),
        ("'event' if n > 3 else 'fluid'", "event"),
        ("max(1, -n)", 1),
        ("sum(duties) / len(duties)", 0.15),
        ("[n, n + 1]", [4, 5]),
    ],
)
def test_expressions(text: str, value: Any) -> None:
    result = evaluate(text, {"n": 4, "i": 3, "duties": [0.1, 0.2]})
    assert result == pytest.approx(value) if isinstance(value, float) else result == value


@pytest.mark.parametrize(
    "text", ["m + 1", "__import__('os')", "n.real", "n(1)", "1 / 0", "duties[9]", "2 *", "n and n"]
)
def test_nothing_else_is_computed(text: str) -> None:
    with pytest.raises(ExpressionError, match=r" in |can't compute"):
        evaluate(text, {"n": 4, "duties": [1]})


def test_shapes_and_periods_multiply() -> None:
    text = PLAIN.replace("pcpus = 2", 'pcpus = "=n"').replace("count = 2", 'count = "=2 * n"')
    shapes = '[[shapes]]\nname = "two"\nn = 2\n[[shapes]]\nname = "four"\nn = 4\n'
    text = f"periods_s = [1, 2]\n{text}\n{shapes}"
    found = scenarios(text)
    names = ["case/two/1s", "case/two/2s", "case/four/1s", "case/four/2s"]
    assert [scenario.name for scenario in found] == names
    assert [len(scenario.guests) for scenario in found] == [4, 4, 8, 8]
    assert [scenario.period_s for scenario in found] == [1, 2, 1, 2]
    assert [guest.name for guest in found[0].guests] == ["g0", "g1", "g2", "g3"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("duration_s = 10", "duration_s = 0", "duration_s must be 1 to"),
        ("duration_s = 10", "", "duration_s: field required"),
        ('role = "cpu"', 'role = "disk"', "role: input should be 'cpu' or 'memory'"),
        ('kind = "hog"', 'kind = "dog"', "guests.0.load.kind: one of idle, hog, .* not 'dog'"),
        ('kind = "hog"', 'kind = "loop", duty = 1.5', "guests.0.load: .*duty must be 0 to 1"),
        ('kind = "hog"', 'kind = "hog", duti = 1', "guests.0.load: duti: unknown key"),
        ("count = 2", "count = -1", "guests.0.count: a whole number is needed"),
        ("count = 2", 'count = "=n"', "guests.0.count: no parameter 'n' in 'n'"),
        ("pcpus = 2", "pcpu = 2", "host: pcpu: unknown key"),
        ("[[guests]]", "[guests]", "guests: a list of tables is needed"),
        ("[host]", 'events = [{ at_s = 1, kind = "pin" }]\n[host]', "event 'pin' needs 'guest'"),
        ("[host]", 'events = [{ at_s = 1, kind = "p" }]\n[host]', "events.0: .*no event 'p'"),
        ("[host]", "shapes = [{ n = 1 }]\n[host]", "shapes: each needs a name"),
        ("[host]", 'criteria = [{ metric = "a" }]\n[host]', "criteria.0: op: field required"),
    ],
)
def test_a_mistake_is_named_with_its_place(old: str, new: str, message: str) -> None:
    assert old in PLAIN
    with pytest.raises(ConfigError, match=f"(?s)case.toml.*{message}"):
        scenarios(PLAIN.replace(old, new, 1))


def test_the_hosts_own_work_is_a_load_like_a_guests() -> None:
    told = PLAIN.replace("pcpus = 2", 'pcpus = 2\nother_work = { kind = "loop", duty = 0.2 }')
    assert scenarios(told)[0].host.other_work == LoopLoad(0.2)
    with pytest.raises(ConfigError, match=r"host.other_work.kind: one of idle, hog, .* not 'hoq'"):
        scenarios(told.replace("loop", "hoq"))


def test_a_file_that_is_not_there_or_no_toml(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone.toml: No such file"):
        read_scenarios(tmp_path / "gone.toml")
    (tmp_path / "bad.toml").write_text("title = ")
    with pytest.raises(ConfigError, match=r"bad.toml: Invalid value"):
        read_scenarios(tmp_path / "bad.toml")


def test_criteria_and_settings_must_exist() -> None:
    (scenario,) = scenarios(
        PLAIN.replace("[host]", 'criteria = [{ metric = "speed", op = "<", value = 1 }]\n[host]')
    )
    with pytest.raises(ConfigError, match="no metric 'speed'; there are: shortfall_percent"):
        check_criteria(scenario)
    (scenario,) = scenarios(f"{PLAIN}\n[settings.guard]\npins = 0\n")
    with pytest.raises(ConfigError, match=r"settings: guard: pins must be 1 to"):
        program_settings(scenario)


def test_all_built_in_scenarios_can_be_run() -> None:
    for scenario in built_in():
        check_criteria(scenario)
        assert program_settings(scenario).period_s == scenario.period_s


def test_all_eleven_acceptance_cases_are_there_at_all_their_periods() -> None:
    names = {scenario.name.partition("/")[0] for scenario in find(["acceptance"])}
    assert {f"c{n}" for n in range(1, 8)} | {f"m{n}" for n in range(1, 5)} <= names
    periods_s = {(s.role.value, s.period_s) for s in find(["acceptance"])}
    assert periods_s == {("cpu", 1.0), ("cpu", 2.0)} | {("memory", p) for p in (1.0, 2.0, 5.0)}


def test_scenarios_are_found_by_file_name_pattern_and_tag(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(PLAIN)
    (mine,) = find([str(tmp_path / "mine.toml")])
    assert mine.name == "mine/plain/1s"
    assert [s.name for s in find(["c1/8-on-4/*"])] == ["c1/8-on-4/1s", "c1/8-on-4/2s"]
    assert {s.role for s in find(["memory"])} == {"memory"}
    with pytest.raises(ConfigError, match="no scenario 'c99'"):
        find(["c99"])


def test_a_grid_varies_settings_and_says_so_in_the_name() -> None:
    (plain,) = scenarios(PLAIN)
    axes = [parse_axis("period_s=1,2"), parse_axis("cpu.policies.balance.idle_ratio=0.1")]
    first, second = grid([plain], axes)
    assert (first.period_s, second.period_s) == (1, 2)
    assert second.settings == {"policies": {"balance": {"idle_ratio": 0.1}}}
    assert second.name == "case/plain/1s@period_s=2,cpu.policies.balance.idle_ratio=0.1"
    with pytest.raises(ConfigError, match="KEY=VALUE"):
        parse_axis("period_s")


def test_noise_of_a_scenario_reaches_the_guests() -> None:
    text = PLAIN.replace('kind = "hog"', 'kind = "noise", mean = 0.3, deviation = 0.1')
    (scenario,) = scenarios(text)
    assert scenario.guests[0].load == NoiseLoad(0.3, 0.1)
