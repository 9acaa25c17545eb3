"""``plan``: a decision that is not carried out, and what it promises."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_bad_input import call
from tests.cli.test_programs import HOST, POLICY
from tests.control.programs import affinities, cpu_role, run
from virtbalance.control.settings import CpuSettings, loop_settings, watching
from virtbalance.cpu.promise import Promise, entitlement_now, promise
from virtbalance.model.cpu_estimate import CpuEstimate
from virtbalance.model.plan import CpuPlan, Pin, Reason
from virtbalance.model.tick import Tick
from virtbalance.simulation.build import host
from virtbalance.simulation.workload import loop
from virtbalance.telemetry.plan_json import plan_object
from virtbalance.ui.plan import plan_lines


class MoveOut:
    """Moves the first vCPU of a heap away, and asks for what can't be."""

    name = "move-out"

    def decide(
        self, state: Any, estimate: CpuEstimate, config: Any, now_s: float
    ) -> tuple[CpuPlan, Any]:
        first, second = (vcpu.key for vcpu in estimate.vcpus[:2])
        out = Pin(first, frozenset({1}), Reason("out", "there is room on 1"))
        return CpuPlan((out, Pin(second, frozenset({9}), out.reason))), state


def planned(tmp_path: Path) -> Tick:
    """Three that want 0.46 each on pCPU 0 of two: 0.38 too much, and none of it with two."""
    heap = host(2, 3, load=loop(0.46), pins=0)
    before = affinities(heap)
    settings = watching(loop_settings(CpuSettings(), ticks=None), 5.0)
    about = {"looks": settings.looks, "period_s": settings.period_s}
    (tick,) = run(heap, cpu_role(MoveOut()), tmp_path, 1, dry_run=True, **about).ticks
    assert affinities(heap) == before
    return tick


def promised(tick: Tick) -> Promise:
    assert isinstance(tick.estimate, CpuEstimate)
    return promise(tick.estimate, entitlement_now(tick.estimate), tick.verdict.actions)


def test_watching_looks_as_often_as_the_program_does() -> None:
    usual = loop_settings(CpuSettings(period_s=1.0), ticks=None)
    longer = watching(usual, 12.0)
    assert (usual.looks, longer.looks, longer.period_s, longer.ticks) == (4, 48, 12.0, 1)
    assert longer.decide_limit_s == usual.decide_limit_s
    assert watching(usual, 0.01).looks == 1


def test_a_plan_in_lines(tmp_path: Path) -> None:
    tick = planned(tmp_path)
    assert plan_lines(tick, promised(tick)) == [
        "move-out, after 5 s: 1 pin",
        "  pCPU  can give  owes  then",
        "  0         1.00  1.38  0.92",
        "  1         1.00  0.00  0.46",
        "  owed 1.38 pCPUs, not delivered: 0.38 pCPUs (27.5%), then 0.00 pCPUs (0.0%)",
        "  deviation of the loads: 0.69, then 0.23",
        "  → pin g0/0 to pCPU 1 [planned]: there is room on 1",
        "  refused: g1/0 on 9: may not run on CPU 9",
    ]


def test_a_plan_as_an_object(tmp_path: Path) -> None:
    tick = planned(tmp_path)
    document = plan_object(tick, promised(tick))
    told = document["promise"]
    assert told["before"]["shortfall_pcpus"] == pytest.approx(0.38, abs=0.005)
    assert told["after"]["shortfall_pcpus"] == 0.0
    assert [row["load_after"] for row in told["pcpus"]] == pytest.approx([0.92, 0.46], abs=0.01)
    assert document["actions"][0]["status"] == "planned"


def test_of_many_pcpus_those_that_change_most(tmp_path: Path) -> None:
    wide = host(40, 2, load=loop(0.46), pins=[30, 31])
    (tick,) = run(wide, cpu_role(MoveOut()), tmp_path, 1, dry_run=True).ticks
    lines = plan_lines(tick, promised(tick))
    shown = [line.split()[0] for line in lines if line.endswith("0.46") or "0.46  0.00" in line]
    assert shown == ["1", "9", "30", "31"]
    assert "  … and 16 more" in lines


@pytest.mark.libvirt
def test_a_plan_for_a_real_connection_leaves_no_trace(tmp_path: Path) -> None:
    (tmp_path / "first.py").write_text(POLICY)
    words = ("virt-balance", "plan", "-c", HOST, "--watch", "2")
    done = call(tmp_path, *words, "--policy", f"{tmp_path}/first.py:First")
    assert done.returncode == 0, done.stderr
    assert done.stderr == "watching for 2 s\n"
    assert "→ pin test/1 to pCPU 0 [planned]: pCPU 0 is the first" in done.stdout
    done = call(tmp_path, *words, "--json", "--exclude", "test")
    document = json.loads(done.stdout)
    assert document["period_s"] == 2.0
    assert document["promise"]["after"]["shortfall_pcpus"] == 0.0
    assert {vcpu["fixed"] for vcpu in document["vcpus"]} == {"excluded by its settings"}
    assert not (tmp_path / "state").exists()
    assert list((tmp_path / "run").glob("*/*")) == []
