"""``explain``: what one guest gets, wants and may have, and why, from a tick."""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_bad_input import call
from tests.cli.test_programs import HOST, POLICY
from tests.cpu.estimates import estimate_of, vcpu
from virtbalance.cli import explain
from virtbalance.cli.errors import CommandError
from virtbalance.model.cpu_estimate import CpuEstimate
from virtbalance.model.guest import RoleName, VcpuKey
from virtbalance.model.plan import CpuPlan, Pin, Reason, Verdict
from virtbalance.model.snapshot import Snapshot
from virtbalance.model.tick import Tick
from virtbalance.telemetry.outlook_json import estimate_of as estimate_of_tick
from virtbalance.telemetry.outlook_json import with_outlook
from virtbalance.telemetry.tick_json import tick_object
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
    "window_s": 1.0,
    "pcpus": [
        {"pcpu": pcpu, "core": pcpu, "llc": 0, "node": 0, "capacity": 1.0} for pcpu in range(2)
    ],
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
            "steady_s": 20.0,
            "weight": 1.0,
            "memory_node": None,
            "cpus": [0],
            "allowed": [0, 1],
            "fixed": None,
        },
        {
            "uuid": "u2",
            "name": "hog",
            "vcpu": 0,
            "run_ratio": 0.67,
            "wait_ratio": 0.33,
            "demand_ratio": 1.0,
            "steady_s": 20.0,
            "weight": 1.0,
            "memory_node": None,
            "cpus": [0],
            "allowed": [0],
            "fixed": None,
        },
    ],
    "desired": [],
    "actions": [PIN],
    "considered": [],
    "amendments": [],
    "holds": [],
}


ELSEWHERE = (
    "    elsewhere: pCPU 0 is loaded 1.50, pCPU 1 would be 0.50 with it: "
    "that relieves the host by 0.60 pCPUs"
)


def lines_of(tick: dict[str, Any], uuid: str = "u1") -> list[str]:
    return explain_lines(with_outlook(tick, uuid), uuid, {})


def test_a_vcpu_that_moves_says_why() -> None:
    assert lines_of(CPU_TICK) == [
        "cpu, policy balance, tick 7 of 12:00",
        "  vCPU 0: got 0.33 of a pCPU, waited 0.33, wants 0.50, is entitled to 0.50",
        "    runs on pCPU 0, may be put on 0-1",
        "    now: pinned to pCPU 1: pCPU 0 is loaded 1.84",
        ELSEWHERE,
    ]


def test_a_vcpu_that_stays_says_since_when_and_why() -> None:
    tick = {**CPU_TICK, "actions": []}
    lines = explain_lines(with_outlook(tick, "u1"), "u1", {"0": {"time": "11:59", **PIN}})
    assert lines[-3:] == [
        "    stays as it is: no change is worth it",
        ELSEWHERE,
        "    last change, 11:59: pinned to pCPU 1: pCPU 0 is loaded 1.84",
    ]


def test_a_vcpu_that_is_not_ours_to_move_says_so() -> None:
    vcpu = {**CPU_TICK["vcpus"][0], "fixed": "pinned in its definition"}
    lines = lines_of({**CPU_TICK, "vcpus": [vcpu], "actions": []})
    assert lines[-1] == "    left alone: pinned in its definition"


def test_a_vcpu_with_nowhere_to_go_says_so() -> None:
    lines = lines_of(CPU_TICK, "u2")
    assert "wants 1.00, is entitled to 1.00" in lines[1]
    assert lines[-1] == "    elsewhere: there is no other pCPU it may use"


def test_what_the_policy_weighed_and_why_it_was_not_enough() -> None:
    text = "mean gain 0.02, needed 0.05"
    weighed = {**PIN, "reason": {"rule": "gain", "text": text, "figures": {}}}
    lines = lines_of({**CPU_TICK, "actions": [], "considered": [weighed]})
    assert lines[-1] == "    not worth it: pCPU 1: mean gain 0.02, needed 0.05"


def test_an_outlook_as_data() -> None:
    web, other = with_outlook(CPU_TICK, "u1")["vcpus"]
    assert other == CPU_TICK["vcpus"][1]
    hog = with_outlook(CPU_TICK, "u2")["vcpus"][1]
    assert web["entitled_ratio"] == 0.5
    assert web["outlook"]["rule"] == "better"
    assert web["outlook"]["figures"]["gain"] == pytest.approx(0.6)
    assert hog["outlook"]["rule"] == "nowhere"
    fixed = {**CPU_TICK["vcpus"][0], "fixed": "paused"}
    assert with_outlook({**CPU_TICK, "vcpus": [fixed]}, "u1")["vcpus"][0]["outlook"] is None


def test_an_estimate_survives_the_way_through_json() -> None:
    host = estimate_of(2, vcpu("a", 0.4, 0), vcpu("b", 0.6, {0, 1}, fixed="paused", weight=2.0))
    tick = tick_of(host)
    back = estimate_of_tick(json.loads(json.dumps(tick_object(tick))))
    assert back.capacity == host.capacity
    assert [replace(v, history=()) for v in host.vcpus] == list(back.vcpus)


def test_what_a_policy_weighed_is_in_the_tick() -> None:
    pin = Pin(VcpuKey("a", 0), frozenset({1}), Reason("gain", "too little"))
    tick = replace(tick_of(estimate_of(2, vcpu("a", 0.4, 0))), plan=CpuPlan(considered=(pin,)))
    assert tick_object(tick)["considered"] == [
        {
            "uuid": "a",
            "name": None,
            "action": "pin",
            "vcpu": 0,
            "cpus": [1],
            "reason": {"rule": "gain", "text": "too little", "figures": {}},
        }
    ]


def tick_of(estimate: CpuEstimate) -> Tick:
    seen = Snapshot(0, 0.0, estimate.topology, ())
    return Tick(RoleName.CPU, "p", 1, 1.0, seen, estimate, CpuPlan(), Verdict(), (), ())


def test_a_tick_of_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    older = CPU_TICK | {"pcpus": [{"pcpu": pcpu, "capacity": 1.0} for pcpu in range(2)]}
    document = {"running": True, "last_tick": older, "last_changes": {}}
    monkeypatch.setattr(explain, "last_ticks", lambda: [document])
    with pytest.raises(CommandError, match="has no 'core': it is of another version; restart it"):
        explain.run(argparse.Namespace(guest="web", fresh=False, json=False))


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
