"""``explain``: what one guest gets, wants and may have, and why, from a tick."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_bad_input import call
from tests.cli.test_programs import HOST, POLICY
from virtbalance.ui.explain import explain_lines

MIB = 1024
REASON = {"rule": "move", "text": "pCPU 0 is loaded 1.84", "figures": {}}
PIN = {
    "uuid": "u1",
    "name": "web",
    "action": "pin",
    "vcpu": 0,
    "cpus": [1],
    "status": "done",
    "reason": REASON,
}
CPU_TICK: dict[str, Any] = {
    "role": "cpu",
    "policy": "balance",
    "tick": 7,
    "time": "12:00",
    "vcpus": [
        {
            "uuid": "u1",
            "name": "web",
            "vcpu": 0,
            "run_ratio": 0.33,
            "wait_ratio": 0.33,
            "demand_ratio": 0.5,
            "cpus": [0],
            "allowed": [0, 1],
            "fixed": None,
        }
    ],
    "desired": [],
    "actions": [PIN],
    "amendments": [],
    "holds": [],
}


def test_a_vcpu_that_moves_says_why() -> None:
    assert explain_lines(CPU_TICK, "u1", {}) == [
        "cpu, policy balance, tick 7 of 12:00",
        "  vCPU 0: got 0.33 of a pCPU, waited 0.33, wants 0.50",
        "    runs on pCPU 0, may be put on 0-1",
        "    now: pinned to pCPU 1: pCPU 0 is loaded 1.84",
    ]


def test_a_vcpu_that_stays_says_since_when_and_why() -> None:
    tick = {**CPU_TICK, "actions": []}
    lines = explain_lines(tick, "u1", {"0": {"time": "11:59", **PIN}})
    assert lines[-2:] == [
        "    stays as it is: no change is worth it",
        "    last change, 11:59: pinned to pCPU 1: pCPU 0 is loaded 1.84",
    ]


def test_a_vcpu_that_is_not_ours_to_move_says_so() -> None:
    vcpu = {**CPU_TICK["vcpus"][0], "fixed": "pinned in its definition"}
    lines = explain_lines({**CPU_TICK, "vcpus": [vcpu], "actions": []}, "u1", {})
    assert lines[-1] == "    left alone: pinned in its definition"


@pytest.mark.libvirt
def test_a_fresh_look_where_nothing_runs(tmp_path: Path) -> None:
    done = call(tmp_path, "virt-balance", "explain", "test", "-c", HOST)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("test (6695eb01-")
    assert "cpu, policy balance, tick 1 of " in done.stdout
    assert "memory, policy fair, tick 1 of " in done.stdout
    done = call(tmp_path, "virt-balance", "explain", "test", "-c", HOST, "--fresh", "--json")
    assert [part["role"] for part in json.loads(done.stdout)] == ["cpu", "memory"]
    assert list((tmp_path / "run").glob("*/*.json")) == [], "no trace is left for status"


@pytest.mark.libvirt
def test_a_guest_that_is_not_there(tmp_path: Path) -> None:
    done = call(tmp_path, "virt-balance", "explain", "nobody", "-c", HOST)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "virt-balance explain: there is no guest 'nobody'\n"


@pytest.mark.libvirt
def test_the_last_change_is_remembered(tmp_path: Path) -> None:
    (tmp_path / "first.py").write_text(POLICY)
    words = ("vcpu_scheduler", "0.2", "-c", HOST, "--ticks", "9")
    call(tmp_path, *words, "--policy", f"{tmp_path}/first.py:First")
    (document,) = json.loads(call(tmp_path, "virt-balance", "status", "--json").stdout)
    (changes,) = document["last_changes"].values()
    assert changes["0"]["reason"]["text"] == "pCPU 0 is the first"
