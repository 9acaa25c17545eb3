"""Runs: the same every time and in any number of processes; resumed; whatever policies do."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from virtbalance.bench.library import find
from virtbalance.bench.pool import Patience, PoolSettings, run_all
from virtbalance.bench.results import (
    DamagedError,
    Job,
    Result,
    ResultsError,
    as_json,
    read_all,
    read_series,
)
from virtbalance.bench.runner import run
from virtbalance.bench.schema import Scenario

MISBEHAVING = Path(__file__).with_name("policies.py")


def small(name: str = "c1/4-on-2/1s", seconds: float = 20.0) -> Scenario:
    (scenario,) = find([name])
    return replace(scenario, duration_s=seconds)


def plain(result: Result) -> str:
    """Return what must be the same everywhere: all but times and the manifest's arguments."""
    return json.dumps({**as_json(result), "timing": None, "manifest": None})


def job(policy: str, scenario: Scenario | None = None, seed: int = 0) -> Job:
    return Job(scenario or small(), policy, seed)


@pytest.mark.parametrize(
    ("name", "policy"), [("c5/4-on-2/1s", "lpt"), ("m1/small/1s", "fair"), ("m1/small/1s", "mom")]
)
def test_the_same_seed_gives_the_same_result_to_the_last_digit(name: str, policy: str) -> None:
    first, second = (run(job(policy, small(name, 40))) for _ in range(2))
    assert plain(first.result) == plain(second.result)
    assert first.series == second.series


def test_another_seed_gives_another_result() -> None:
    first, second = (run(job("lpt", small("c5/4-on-2/1s"), seed)) for seed in (0, 1))
    assert first.result.metrics != second.result.metrics


def test_two_processes_give_the_same_results_as_one() -> None:
    jobs = [job(policy, seed=seed) for policy in ("balance", "lpt") for seed in (0, 1)]
    alone = {r.policy + str(r.seed): plain(r) for r in (run(j).result for j in jobs)}
    together = {r.policy + str(r.seed): plain(r) for r in run_all(jobs, PoolSettings(2))}
    assert together == alone


def test_every_contender_meets_the_same_demands() -> None:
    scenario = small("c5/4-on-2/1s")
    shares = [run(job(policy, scenario)).series["vcpus"] for policy in ("hold", "lpt", "balance")]
    assert shares[0] == shares[1] == shares[2]


def test_balance_passes_what_the_original_does_not() -> None:
    scenario = small(seconds=40.0)
    assert run(job("balance", scenario)).result.passed is True
    original = run(job("threshold", scenario)).result
    assert original.passed is False
    assert original.metrics["time_to_balance_s"] is None


def test_a_lone_busy_vcpu_is_moved_for_ever_by_the_original_only() -> None:
    scenario = small("lone/plain/1s", 60.0)
    assert run(job("balance", scenario)).result.metrics["pin_changes"] == 0
    moved = run(job("threshold", scenario)).result.metrics["pin_changes"]
    assert moved is not None
    assert moved > 30


def test_the_original_shrinks_a_starving_guest() -> None:
    scenario = small("s1/plain/2s", 120.0)
    original, ours = (run(job(p, scenario)).result.metrics for p in ("threshold", "fair"))
    assert original["starving_shrunk"] is not None
    assert original["starving_shrunk"] > 0
    assert ours["starving_shrunk"] == 0


def test_what_other_rules_do_on_recorded_loads() -> None:
    """Swaps of whole sets change nothing for the better; longest-first moves nearly everybody."""
    scenario = small("p11-excerpt/0.85/4s", 144.0)
    round_robin, threshold, lpt, greedy = (
        run(job(policy, scenario)).result.metrics
        for policy in ("round-robin", "threshold", "lpt", "greedy")
    )
    assert threshold["shortfall_percent"] == round_robin["shortfall_percent"]
    assert lpt["pins_interval"] is not None
    assert greedy["pins_interval"] is not None
    assert lpt["pins_interval"] > 0.8 * 64
    assert greedy["pins_interval"] < 0.2 * lpt["pins_interval"]


@pytest.mark.parametrize(
    ("name", "better", "worse", "least_gap"),
    [
        ("s2", "qmemman", "pi", 0.5),  # by what guests prefer, not by one ratio for all
        ("s2", "pi", "mom", 0.02),
        ("s1", "mom", "squeezed", 0.5),  # the same fraction for all feeds the idle
        ("s8", "squeezed", "mom", 0.3),  # 5 % each 10 s is too slow for arrivals at full size
        ("s6", "none", "pi", -0.01),  # what a guest does not touch costs the host nothing
        ("s8", "pi", "none", 0.1),  # but once it is touched, the host swaps
    ],
)
def test_order_of_other_rules_for_memory(
    name: str, better: str, worse: str, least_gap: float
) -> None:
    """Where the manual's list of reasons comes from: speed over the worst twentieth of time."""
    (scenario,) = find([name])
    first, second = (run(job(p, scenario)).result.metrics for p in (better, worse))
    assert first["performance_worst"] is not None
    assert second["performance_worst"] is not None
    assert first["performance_worst"] > second["performance_worst"] + least_gap


def test_results_and_series_are_kept_and_read_back(tmp_path: Path) -> None:
    jobs = [job("hold"), job("lpt")]
    done = list(run_all(jobs, PoolSettings(1, tmp_path)))
    assert {plain(r) for r in read_all(tmp_path)} == {plain(r) for r in done}
    series = read_series(tmp_path, done[0])
    assert series is not None
    assert len(series["times_s"]) == 20
    assert done[0].manifest["seed"] == 0
    assert len(done[0].manifest["scenario_sha256"]) == 64


def test_an_interrupted_set_goes_on_where_it_was(tmp_path: Path) -> None:
    jobs = [job("hold", seed=seed) for seed in range(3)]
    results = run_all(jobs, PoolSettings(1, tmp_path))
    next(results)
    results.close()  # type: ignore[attr-defined]
    (kept,) = read_all(tmp_path)
    marked = replace(kept, title="kept from before")
    (path,) = tmp_path.glob("*sim0.json")
    path.write_text(json.dumps(as_json(marked)))
    again = list(run_all(jobs, PoolSettings(1, tmp_path)))
    assert [r.seed for r in again] == [0, 1, 2]
    assert [r.title for r in again].count("kept from before") == 1  # it was not run again


def test_a_damaged_result_is_made_anew(tmp_path: Path) -> None:
    (whole,) = run_all([job("hold")], PoolSettings(1, tmp_path))
    (path,) = tmp_path.glob("*.json")
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DamagedError, match="is no result of the bench"):
        read_all(tmp_path)
    (again,) = run_all([job("hold")], PoolSettings(1, tmp_path))
    assert plain(again) == plain(whole) == plain(read_all(tmp_path)[0])


def test_a_result_of_another_format_is_not_overwritten(tmp_path: Path) -> None:
    list(run_all([job("hold")], PoolSettings(1, tmp_path)))
    (path,) = tmp_path.glob("*.json")
    text = path.read_text().replace('"format": 1', '"format": 9')
    path.write_text(text)
    with pytest.raises(ResultsError, match="has format 9, not 1"):
        list(run_all([job("hold")], PoolSettings(1, tmp_path)))
    assert path.read_text() == text


def test_damaged_curves_are_named(tmp_path: Path) -> None:
    (result,) = run_all([job("hold")], PoolSettings(1, tmp_path))
    (path,) = tmp_path.glob("*.gz")
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ResultsError, match=r"series\.json\.gz is damaged"):
        read_series(tmp_path, result)


def test_a_changed_scenario_is_run_again(tmp_path: Path) -> None:
    list(run_all([job("hold")], PoolSettings(1, tmp_path)))
    longer = job("hold", small(seconds=21.0))
    (result,) = run_all([longer], PoolSettings(1, tmp_path))
    assert result.metrics["ticks"] == 20  # the first at 1 s, none at the end


def test_a_policy_that_raises_is_counted_and_the_run_goes_on() -> None:
    result = run(job(f"{MISBEHAVING}:Raises")).result
    assert result.metrics["policy_failures"] == result.metrics["ticks"] == 19
    assert result.error is not None
    assert "policies.py:19: RuntimeError: I do not know; holding" in result.error
    assert result.passed is False


def test_a_policy_that_ends_the_program_is_counted_and_the_run_goes_on() -> None:
    (result,) = run_all([job(f"{MISBEHAVING}:Exits")], PoolSettings(1))
    assert result.metrics["policy_failures"] == result.metrics["ticks"] == 19
    assert "SystemExit: 3; holding" in str(result.error)


def test_a_policy_that_answers_the_wrong_type_is_counted() -> None:
    result = run(job(f"{MISBEHAVING}:WrongType")).result
    assert result.metrics["policy_failures"] == 19
    assert "decide returned str" in str(result.error)


@pytest.mark.parametrize("guard", ["", "+bare"])
def test_nonsense_is_counted_with_and_without_guard(guard: str) -> None:
    result = run(job(f"{MISBEHAVING}:Nonsense{guard}")).result
    refused = (result.metrics["nonsense"] or 0) + (result.metrics["refused"] or 0)
    assert refused == 4 * 19
    assert result.metrics["pin_changes"] == 0


@pytest.mark.parametrize("guard", ["", "+bare"])
def test_negative_memory_is_counted_with_and_without_guard(guard: str) -> None:
    scenario = small("m1/small/1s")
    result = run(job(f"{MISBEHAVING}:NegativeMemory{guard}", scenario)).result
    assert result.metrics["nonsense"] == 2 * (result.metrics["ticks"] or 0) > 0
    assert result.metrics["calls_h"] == 0


def test_a_policy_that_never_answers_is_ended_and_the_others_go_on() -> None:
    jobs = [job(f"{MISBEHAVING}:Sleeps"), job("hold")]
    settings = PoolSettings(1, patience=Patience(silence_s=2.0, end_s=10.0))
    results = {result.policy.rpartition(":")[2]: result for result in run_all(jobs, settings)}
    assert results["Sleeps"].passed is False
    assert "did not answer within 2 s" in str(results["Sleeps"].error)
    assert results["hold"].metrics["ticks"] == 19


@pytest.mark.parametrize(("end_s", "in_order"), [(0.2, False), (30.0, True)])
def test_a_worker_has_time_to_end_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end_s: float, in_order: bool
) -> None:
    """As real guests need it that are just being started."""
    left = tmp_path / "left"
    monkeypatch.setenv("LEFT", str(left))
    settings = PoolSettings(1, patience=Patience(silence_s=1.0, end_s=end_s))
    (result,) = run_all([job(f"{MISBEHAVING}:SlowToLeave")], settings)
    assert "did not answer within 1 s" in str(result.error)
    assert left.exists() == in_order


def test_the_guard_can_be_put_on_a_baseline_and_taken_off_ours() -> None:
    scenario = small("c1/8-on-4/1s")
    bare = run(job(f"{MISBEHAVING}:First+bare", replace(scenario, guests=scenario.guests))).result
    assert bare.metrics["nonsense"] == 0
    free, guarded = (
        run(job(policy, scenario)).result.metrics["pin_changes"] for policy in ("lpt", "lpt+guard")
    )
    assert free is not None
    assert guarded is not None
    assert guarded < free / 2
