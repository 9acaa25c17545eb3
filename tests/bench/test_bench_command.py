"""``virt-balance bench``: what it prints, and its exit codes."""

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import time
from dataclasses import replace
from pathlib import Path

import pytest

from virtbalance.bench.library import find
from virtbalance.bench.results import Job, read_all, write
from virtbalance.bench.runner import run
from virtbalance.bench.schema import LoopLoad
from virtbalance.bench.truth import comparisons, truth_jobs
from virtbalance.cli.main import main

MISBEHAVING = Path(__file__).with_name("policies.py")
BENCH = (str(Path(sys.executable).with_name("virt-balance")), "bench")


def bench(*words: str) -> int:
    return main(["bench", *words])


def test_list_and_show(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("list") == 0
    text = capsys.readouterr().out
    assert re.search(r"^c1 +cpu +12 +acceptance", text, re.MULTILINE)
    assert "memory policies: fair, hold, none, threshold" in text
    assert bench("show", "c1/8-on-4/1s") == 0
    shown = capsys.readouterr().out
    assert "# C1: every vCPU pinned to the first pCPU" in shown
    assert shown.endswith("# runs as c1/8-on-4/1s for 40 s\n")
    assert bench("list", "--metrics") == 0
    assert "shortfall_percent" in capsys.readouterr().out


def test_json_has_one_object_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("run", "c1/4-on-2/2s", "--json") == 0
    (result,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (result["scenario"], result["on"], result["policy"], result["seed"]) == (
        "c1/4-on-2/2s",
        "sim",
        "balance",
        0,
    )
    assert result["passed"] is True
    assert result["metrics"]["pin_changes"] == 2


def test_a_failed_criterion_is_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("run", "lone", "--policy", "threshold", "--policy", "balance") == 1
    text = capsys.readouterr().out
    assert re.search(r"lone/plain/1s  threshold  seed 0  FAILED: pin_changes == 0 \(is", text)
    assert re.search(r"^balance +1/1 ", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "c99"], "no scenario 'c99'"),
        (["run", "c1", "--policy", "nobody"], "no cpu policy 'nobody'; there are: balance"),
        (["run", "c1", "--set", "guard.pins=0"], "guard: pins must be 1 to"),
        (["run", "c1", "--set", "guard.pin=1"], "settings: guard.pin: unknown key"),
        (["sweep", "c1"], "sweep needs --set"),
        (["run", "c1", "m1", "--policy", "x.py:X"], "name scenarios of one role only"),
        (["run", "c1", "--policy", "x.py:X"], "x.py: no such file"),
        (["run", "c1", "--set", "policies.balnce.pin=cpu"], "cpu.policies.balnce: there is no su"),
        (["run", "c1", "--set", "policies.balance.pin=cup"], "pin must be auto, cpu or domain"),
        (["run", "c1", "--policy", "lpt", "--set", "policies.lpt.x=1"], "'lpt' has no settings"),
        (["run", "c1", "--set", "duration_s=long"], "duration_s must be 1 to 1e+07, got long"),
        (["sweep", "c1", "--set", "period_s=1", "--set", "period_s=2"], "--set period_s is given"),
        (["run", "c1", "--metric", "beauty"], "no metric 'beauty'"),
        (["pairs", "c1", "--policy", "lpt"], "pairs needs two policies"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(*words) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""
    for line in captured.err.splitlines():
        assert line.startswith("virt-balance bench: ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["report", "nowhere"], "nowhere: no such directory"),
        (["report", "."], ".: no results"),
        (["compare", ".", "nowhere"], ".: no results"),
        (["run", "lone", "--out", "/proc/version"], "/proc/version: File exists"),
        (["run", "lone", "--out", "/proc/none"], "/proc/none: No such file or directory"),
    ],
)
def test_directories_that_are_none_are_one_line_and_exit_code_1(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("virtbalance.cli.main._drop_output", lambda: None)
    assert bench(*words) == 1
    assert capsys.readouterr() == ("", f"virt-balance bench: {message}\n")


def test_scenarios_may_be_named_in_capitals(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("show", "C1/4-on-2/1S") == 0
    assert "# runs as c1/4-on-2/1s for 40 s" in capsys.readouterr().out


def test_what_a_policy_prints_is_not_among_the_results(tmp_path: Path) -> None:
    words = ["bench", "run", "lone", "--set", "duration_s=5", "--json"]
    done = subprocess.run(
        [
            Path(sys.executable).with_name("virt-balance"),
            *words,
            "--policy",
            f"{MISBEHAVING}:Exits",
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert json.loads(done.stdout)["policy"].endswith(":Exits")
    assert done.stderr == "I am off\n" * 4


@pytest.mark.parametrize("after_s", [0.0, 0.4])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_ctrl_c_ends_all_without_a_word_and_keeps_what_is_finished(
    tmp_path: Path, number: signal.Signals, after_s: float
) -> None:
    words = ["run", "lone", "--seeds", "500", "--jobs", "2", "--out", str(tmp_path / "r")]
    process = subprocess.Popen(
        [*BENCH, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not (tmp_path / "r").is_dir():  # workers are about to start
        time.sleep(0.01)
    time.sleep(after_s)
    os.killpg(process.pid, number)
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors == ""
    kept = read_all(tmp_path / "r") if output else ()
    assert len(kept) >= output.count("passed")


def test_progress_keeps_to_one_line_of_a_narrow_terminal() -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 60))
    words = ["run", "c5/4-on-2/1s", "c5/8-on-4/1s", "--jobs", "2", "--policy", "hold"]
    process = subprocess.Popen([*BENCH, *words], stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # how a terminal says that nobody writes to it any more
        while part := os.read(ours, 4096):
            shown += part
    process.wait(timeout=60)
    lines = shown.decode().split("\r\x1b[K")
    assert any(line.startswith("0/2  c5_4-on-2_1s__hold__sim0 ") for line in lines)
    assert max(len(line) for line in lines) == 59


def test_report_and_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    run = ("run", "c1/4-on-2/2s", "m1/small/2s", "--set", "duration_s=60")
    bench(*run, "--out", str(one))
    bench(*run, "--out", str(two), "--policy", "balance", "--policy", "hold")
    capsys.readouterr()
    assert bench("report", str(one)) == 0
    page = (one / "report.html").read_text()
    assert capsys.readouterr().out == f"{one / 'report.html'}\n"
    assert page.count("<svg") == 7  # four of CPU, three of memory
    assert not re.search(r'(src|href)="http', page)
    assert len(list((one / "figures").glob("*.png"))) == 7
    assert bench("compare", str(one), str(two)) == 0
    text = capsys.readouterr().out
    assert "1 scenarios and policies in common" in text
    assert "no difference" in text
    assert bench("report", str(tmp_path)) == 1


@pytest.mark.parametrize(
    ("scenario", "verdicts"),
    [
        ("p2/3-on-2/1s", {"jain_run": True, "demand_error": False}),
        ("c1/4-on-2/1s", {"CPU share, worst guest": False}),
        ("loops/plain/1s", {"demand_error": False}),
    ],
)
def test_what_is_compared_of_real_and_simulated_guests(
    scenario: str, verdicts: dict[str, bool], tmp_path: Path
) -> None:
    jobs = [job for job in truth_jobs() if job.scenario.name == scenario]
    assert [job.on for job in jobs] == ["sim", "lab"]
    simulated = run(jobs[0])
    write(tmp_path, jobs[0], simulated.result, simulated.series)
    # As if real guests had got a tenth of a pCPU less each, and demands had been hard to tell.
    run_rows = [[share - 0.1 for share in row] for row in simulated.series["run"]]
    pins = simulated.result.metrics["pin_changes"] or 0.0
    jain = (simulated.result.metrics["jain_run"] or 0.0) - 0.02
    metrics = {"pin_changes": pins + 3.0, "jain_run": jain, "demand_error": 0.031}
    real = replace(simulated.result, on="lab", metrics=metrics)
    write(tmp_path, jobs[1], real, {**simulated.series, "run": run_rows})
    found = {one.figure: one for one in comparisons([simulated.result, real], tmp_path)}
    assert found["CPU share, worst guest"].difference == pytest.approx(0.1)
    assert found["pin_changes"].difference == 3.0
    assert found["pcpu_sd_points"].difference is None
    judged = {name: one.holds for name, one in found.items() if one.holds is not None}
    assert judged == verdicts
    assert all(bool(one.demanded) == (name in judged) for name, one in found.items())


def test_what_the_host_does_itself_is_taken_from_its_guests() -> None:
    (scenario,) = find(["p2/3-on-2/1s"])
    idle = run(Job(scenario, "none", 0)).result.metrics
    busy_host = replace(scenario.host, other_work=LoopLoad(0.07))
    busy = run(Job(replace(scenario, host=busy_host), "none", 0)).result.metrics
    assert idle["other_work_percent"] == pytest.approx(0.0, abs=0.1)
    assert busy["other_work_percent"] == pytest.approx(7.0, abs=1.0)


def test_a_sweep_is_a_grid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sweep", "c1/4-on-2/1s", "--set", "duration_s=12", "--set", "period_s=1,2", "--json"]
    bench(*words)
    results = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [result["metrics"]["ticks"] for result in results] == [11, 5]


def test_an_error_in_a_users_policy_is_shown_with_file_and_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    bench("run", "c1/4-on-2/2s", "--policy", f"{MISBEHAVING}:Raises")
    assert "policies.py:19: RuntimeError: I do not know" in capsys.readouterr().out


def test_seeds_in_several_processes_and_columns_of_choice(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["run", "c1/4-on-2/1s", "--set", "duration_s=40", "--seeds", "2", "--jobs", "2"]
    assert bench(*words, "--metric", "jain_run") == 0
    text = capsys.readouterr().out
    assert re.search(r"^policy +passed +jain_run$", text, re.MULTILINE)
    assert re.search(r"^balance +2/2 ", text, re.MULTILINE)


def test_where_the_traces_are_is_an_option(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIRT_BALANCE_TRACES", "")
    assert bench("run", "p11-planetlab/0.60", "--traces", str(tmp_path)) == 1
    assert f"{tmp_path}/planetlab-2011-cpu.csv.gz: No such file" in capsys.readouterr().out


def test_what_real_guests_can_not_do_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("run", "p18", "--on", "lab") == 1
    assert "p18/plain/4s can't run on the lab: it has 128 pCPUs" in capsys.readouterr().out
