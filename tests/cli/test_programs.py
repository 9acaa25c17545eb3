"""The programs' options, each seen to do what it says, on libvirt's own test driver.

That host has one guest, ``test``, with two vCPUs and no statistics worth the name.
"""

import configparser
import json
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_bad_input import BIN, call

pytestmark = pytest.mark.libvirt

HOST = "test:///default"
POLICY = """
from virtbalance.model.plan import CpuPlan, Pin, Reason

class First:
    name = "first"

    def decide(self, state, estimate, config, now_s):
        first = min(estimate.capacity)
        why = Reason("first", "pCPU {pcpu} is the first", {"pcpu": first})
        return CpuPlan(tuple(Pin(v.key, frozenset({first}), why) for v in estimate.vcpus)), state
"""


def ticks(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    documents = [json.loads(line) for line in done.stdout.splitlines()]
    return [document for document in documents if "tick" in document]


def test_once_is_one_tick_and_a_table(tmp_path: Path) -> None:
    done = call(tmp_path, "vcpu_scheduler", "0.2", "-c", HOST, "--once")
    assert done.returncode == 0
    assert done.stdout.count("cpu balance #") == 1
    assert "test/0" in done.stdout
    assert "guest/vCPU" in done.stdout


def test_ticks_are_so_many(tmp_path: Path) -> None:
    done = call(tmp_path, "vcpu_scheduler", "0.1", "-c", HOST, "--ticks", "3", "--json")
    assert [tick["tick"] for tick in ticks(done)] == [1, 2, 3]


def test_quiet_says_what_is_done_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "first.py").write_text(POLICY)
    words = ("vcpu_scheduler", "0.2", "-c", HOST, "--ticks", "8", "--quiet")
    done = call(tmp_path, *words, "--policy", f"{tmp_path}/first.py:First")
    assert done.returncode == 0, done.stderr
    assert "cpu    → pin test/0 to pCPU 0: pCPU 0 is the first" in done.stdout
    assert "guest/vCPU" not in done.stdout
    assert call(tmp_path, *words, "--json").returncode == 2


def test_the_systemd_unit_calls_us_with_words_we_know(tmp_path: Path) -> None:
    unit = configparser.ConfigParser()
    unit.read(Path(__file__).parents[2] / "contrib/virt-balance.service")
    program, *words = shlex.split(unit["Service"]["ExecStart"])
    words[words.index("--connect") + 1] = HOST
    done = call(tmp_path, Path(program).name, *words, "--dry-run", "--once")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_default_uri_of_the_environment_is_used(tmp_path: Path) -> None:
    words = ("virt-balance", "memory", "0.2", "--once", "--json", "--dry-run")
    done = call(tmp_path, *words, LIBVIRT_DEFAULT_URI=HOST)
    (tick,) = ticks(done)
    assert [guest["name"] for guest in tick["guests"]] == ["test"]


def test_a_users_policy_is_asked(tmp_path: Path) -> None:
    (tmp_path / "first.py").write_text(POLICY)
    words = ("vcpu_scheduler", "0.2", "-c", HOST, "--ticks", "8", "--json")
    done = call(tmp_path, *words, "--policy", f"{tmp_path}/first.py:First")
    last = ticks(done)[-1]
    assert last["policy"] == "first"
    reasons = {a["reason"]["text"] for tick in ticks(done) for a in tick["actions"]}
    assert reasons == {"pCPU 0 is the first"}


@pytest.mark.parametrize(
    ("words", "left_alone"),
    [
        (["--exclude", "te*"], True),
        (["--include", "web*"], True),
        (["--include", "web*", "--include", "te*"], False),
        (["--exclude", "web*"], False),
    ],
)
def test_include_and_exclude_choose_by_name(
    tmp_path: Path, words: list[str], left_alone: bool
) -> None:
    done = call(tmp_path, "vcpu_scheduler", "0.2", "-c", HOST, "--ticks", "6", "--json", *words)
    fixed = ticks(done)[-1]["vcpus"][0]["fixed"]
    assert (fixed is not None) is left_alone


@pytest.mark.parametrize(("on_exit", "kept"), [("keep", True), ("restore", False)])
def test_what_becomes_of_pins_at_the_end(tmp_path: Path, on_exit: str, kept: bool) -> None:
    (tmp_path / "first.py").write_text(POLICY)
    words = ("vcpu_scheduler", "0.2", "-c", HOST, "--ticks", "8", "--json", "--on-exit", on_exit)
    done = call(tmp_path, *words, "--policy", f"{tmp_path}/first.py:First")
    assert any(tick["actions"] for tick in ticks(done))
    journals = list((tmp_path / "state").glob("*/journal.json"))
    entries = [json.loads(path.read_text())["guests"] for path in journals]
    assert any(entries) is kept


def test_settings_of_a_file_and_options_on_top(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text(f'uri = "{HOST}"\n[cpu]\nperiod_s = 0.2\npolicy = "hold"\n')
    words = ("virt-balance", "cpu", "--config", str(path), "--once", "--json")
    assert ticks(call(tmp_path, *words))[0]["period_s"] == 0.2
    assert ticks(call(tmp_path, *words))[0]["policy"] == "hold"
    assert ticks(call(tmp_path, *words, "--policy", "balance"))[0]["policy"] == "balance"


def test_a_locale_without_our_characters_loses_no_line(tmp_path: Path) -> None:
    (tmp_path / "first.py").write_text(POLICY)
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    words = ("vcpu_scheduler", "0.2", "-c", HOST, "--once", "--dry-run")
    done = call(tmp_path, *words, "--policy", f"{tmp_path}/first.py:First", **plain)
    assert "  ? pin test/0 to pCPU 0 [planned]: pCPU 0 is the first\n" in done.stdout


def test_what_a_policy_prints_is_not_among_the_ticks(tmp_path: Path) -> None:
    told = POLICY.replace("        first =", "        print('decided')\n        first =")
    told = told.replace("class First:", "print('imported')\n\nclass First:")
    (tmp_path / "first.py").write_text(told)
    words = ("vcpu_scheduler", "0.2", "-c", HOST, "--once", "--json")
    done = call(tmp_path, *words, "--policy", f"{tmp_path}/first.py:First")
    assert [tick["tick"] for tick in ticks(done)] == [1]
    assert done.stderr == "imported\ndecided\n"


def test_both_at_once(tmp_path: Path) -> None:
    words = ("virt-balance", "run", "--connect", HOST, "--ticks", "2", "--json", "--dry-run")
    done = call(tmp_path, *words, "--cpu-period", "0.2", "--memory-period", "0.3")
    assert sorted((t["role"], t["tick"]) for t in ticks(done)) == [
        ("cpu", 1),
        ("cpu", 2),
        ("memory", 1),
        ("memory", 2),
    ]


def test_status_shows_the_last_tick(tmp_path: Path) -> None:
    call(tmp_path, "vcpu_scheduler", "0.2", "-c", HOST, "--ticks", "2")
    done = call(tmp_path, "virt-balance", "status")
    assert done.returncode == 1, "nothing runs any more"
    assert "not running, policy balance, tick 2" in done.stdout
    (document,) = json.loads(call(tmp_path, "virt-balance", "status", "--json").stdout)
    assert document["last_tick"]["tick"] == 2
    assert document["running"] is False


def test_status_of_a_tick_of_another_version(tmp_path: Path) -> None:
    call(tmp_path, "vcpu_scheduler", "0.2", "-c", HOST, "--once")
    (path,) = (tmp_path / "run").glob("*/cpu.json")
    path.write_text(path.read_text().replace('"wait_ratio"', '"waited"'))
    done = call(tmp_path, "virt-balance", "status")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "virt-balance status: the program's last tick has no 'wait_ratio': it is of another"
        " version; restart it, or explain a guest with --fresh\n"
    )


def test_restore_with_nothing_to_do_says_so(tmp_path: Path) -> None:
    done = call(tmp_path, "virt-balance", "restore", "-c", HOST)
    assert (done.returncode, done.stdout) == (
        0,
        "cpu: nothing to put back\nmemory: nothing to put back\n",
    )
    done = call(tmp_path, "virt-balance", "restore", "-c", HOST, "--only", "memory")
    assert done.stdout == "memory: nothing to put back\n"


def test_set_says_what_holds_now(tmp_path: Path) -> None:
    words = ["--weight", "2", "--minimum", "512MiB", "--maximum", "1GiB", "--exclude", "memory"]
    words += ["--swap", "no"]
    done = call(tmp_path, "virt-balance", "set", "test", "-c", HOST, *words)
    assert done.returncode == 0
    assert done.stdout.startswith(
        "test: weight 2, minimum 524288 KiB, maximum 1048576 KiB, without swap, "
        "left alone by memory, set 20"
    )
    done = call(tmp_path, "virt-balance", "set", "test", "-c", HOST, "--defaults", "--include")
    assert done.stdout.startswith("test: weight 1, set 20")
    done = call(tmp_path, "virt-balance", "set", "test", "-c", HOST, "--show")
    assert done.stdout == "test: weight 1\n"
    done = call(tmp_path, "virt-balance", "set", "nobody", "-c", HOST, "--weight", "2")
    assert (done.returncode, done.stderr) == (1, "virt-balance set: there is no guest 'nobody'\n")
    done = call(
        tmp_path, "virt-balance", "set", "test", "-c", HOST, "--minimum", "2G", "--maximum", "1G"
    )
    assert done.returncode == 2


def test_a_reader_that_goes_away_ends_the_program(tmp_path: Path) -> None:
    shell = f"{BIN}/vcpu_scheduler 0.1 -c {HOST} --dry-run | head -n 1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", shell],
        env={**os.environ, "VIRT_BALANCE_RUN_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""
