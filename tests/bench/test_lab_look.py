"""What is looked at on real guests: their own reports beside the host's counters."""

from dataclasses import dataclass, replace
from typing import Any, cast

import pytest

from virtbalance.bench.lab_look import Looker, nominal_demand
from virtbalance.bench.lab_stage import QuickLoop, Stage
from virtbalance.bench.library import find
from virtbalance.bench.schema import BurstsLoad, HogLoad, NoiseLoad, PhasesLoad, PhaseTable
from virtbalance.lab import CpuReport, MemoryFigures, MemoryReport, Report
from virtbalance.model.guest import GuestState, VcpuKey
from virtbalance.model.snapshot import GuestSample, PcpuSample, Snapshot, VcpuSample
from virtbalance.model.topology import Topology

SECOND_NS = 10**9
NOTHING = MemoryReport("none", 0, 0, 0, 0, *[MemoryFigures(0, 0, 0, 0, 0, 0, 0)] * 2)
LOOPS = {0.37: QuickLoop(1000, 200_000.0), 0.6: QuickLoop(3000, 250_000.0)}


@dataclass
class FakeGuest:
    """A guest that has counted so far."""

    turns: int = 0
    asked: int = 0

    def report(self) -> Report:
        self.asked += 1
        return Report(0, (CpuReport(0, "count", self.turns, 0, 0, 0),), NOTHING)


def snapshot(at_s: float, run_s: float, state: GuestState = GuestState.RUNNING) -> Snapshot:
    at_ns = round(at_s * SECOND_NS)
    vcpu = VcpuSample(0, round(run_s * SECOND_NS), 0, at_ns, frozenset({0}))
    guests = tuple(GuestSample(f"uuid-{i}", f"g{i}", "1", state, vcpus=(vcpu,)) for i in range(4))
    return Snapshot(at_ns, 0.0, Topology(()), guests, (PcpuSample(0, at_ns),))


def stage(guests: dict[str, FakeGuest]) -> Stage:
    return Stage(cast("Any", guests), "qemu:///nowhere", LOOPS, turns_per_s=400_000.0)


@pytest.fixture
def guests() -> dict[str, FakeGuest]:
    return {f"g{i}": FakeGuest() for i in range(4)}


def test_work_is_what_the_guest_counted_as_time_of_a_free_pcpu(
    guests: dict[str, FakeGuest],
) -> None:
    (scenario,) = find(["c1/4-on-2/1s"])
    key = VcpuKey("uuid-0", 0)
    guests["g0"].turns = 7_000  # while it was made ready
    with Looker(scenario, stage(guests), 0) as looker:
        assert looker.look(snapshot(0.0, 0.0)).vcpus[key].work_s == 0
        guests["g0"].turns = 87_000
        seen = looker.look(snapshot(1.0, 0.5)).vcpus[key]
        # 80 000 turns are 0.4 s of a pCPU for a loop that is alone; sharing one it took 0.5
        assert (seen.work_s, seen.run_s) == pytest.approx((0.4, 0.5))


def test_a_loop_that_got_slower_wants_more(guests: dict[str, FakeGuest]) -> None:
    (scenario,) = find(["c1/4-on-2/1s"])  # 0.37 of a pCPU, 200 000 turns a second when alone
    key = VcpuKey("uuid-0", 0)
    with Looker(scenario, stage(guests), 0) as looker:
        assert looker.look(snapshot(0.0, 0.0)).vcpus[key].demand_ratio == 0.37
        guests["g0"].turns = 80_000  # in half a second: 160 000 a second, 1.25 times as long busy
        busy = looker.look(snapshot(1.0, 0.5)).vcpus[key].demand_ratio
        assert busy == pytest.approx(0.4625 / (0.4625 + 0.63))
        for second in range(2, 13):  # as fast as alone, for longer than is looked back
            guests["g0"].turns += 74_000
            seen = looker.look(snapshot(second, 0.5 + 0.37 * (second - 1))).vcpus[key]
        assert seen.demand_ratio == pytest.approx(0.37)


def test_a_load_that_changed_is_judged_by_what_it_did_since(guests: dict[str, FakeGuest]) -> None:
    (scenario,) = find(["c1/4-on-2/1s"])
    phases = PhasesLoad((PhaseTable(1.0, 0.6), PhaseTable(9.0, 0.37)))
    turning = replace(scenario, guests=tuple(replace(g, load=phases) for g in scenario.guests))
    with Looker(turning, stage(guests), 0) as looker:
        looker.look(snapshot(0.0, 0.0))
        guests["g0"].turns = 150_000  # 0.6 s of a loop that counts 250 000 a second
        looker.look(snapshot(1.0, 0.6))
        seen = looker.look(snapshot(2.0, 0.6)).vcpus[VcpuKey("uuid-0", 0)]
    assert seen.demand_ratio == 0.37


def test_turns_of_different_loads_count_by_their_own_speed(guests: dict[str, FakeGuest]) -> None:
    (scenario,) = find(["c1/4-on-2/1s"])
    phases = PhasesLoad((PhaseTable(1.0, 0.6), PhaseTable(9.0, 0.37)))
    hogs = replace(scenario, guests=tuple(replace(g, load=HogLoad()) for g in scenario.guests))
    turning = replace(scenario, guests=tuple(replace(g, load=phases) for g in scenario.guests))
    for told, work_s in ((hogs, 1.0), (turning, 0.8 + 1.0)):
        guests["g0"].turns = 0
        with Looker(told, stage(guests), 0) as looker:
            looker.look(snapshot(0.0, 0.0))
            guests["g0"].turns += 200_000
            looker.look(snapshot(1.0, 0.5))
            guests["g0"].turns += 200_000
            seen = looker.look(snapshot(2.0, 1.0)).vcpus[VcpuKey("uuid-0", 0)]
        assert seen.work_s == pytest.approx(work_s)


def test_a_paused_guest_is_not_asked_and_keeps_what_it_said(guests: dict[str, FakeGuest]) -> None:
    (scenario,) = find(["c1/4-on-2/1s"])
    with Looker(scenario, stage(guests), 0) as looker:
        looker.look(snapshot(0.0, 0.0))
        guests["g0"].turns = 100_000
        looker.look(snapshot(1.0, 0.5))
        paused = looker.look(snapshot(2.0, 0.5, GuestState.PAUSED))
    assert guests["g0"].asked == 2
    assert paused.vcpus[VcpuKey("uuid-0", 0)].work_s == pytest.approx(0.5)


def test_nominal_demands() -> None:
    phases = PhasesLoad((PhaseTable(10, 0.2), PhaseTable(5, 0.6)))
    assert nominal_demand(NoiseLoad(0.37, 0.01), 3.0) == 0.37
    assert nominal_demand(BurstsLoad(0.5, 1.5), 3.0) == 0.25
    assert [nominal_demand(phases, at_s) for at_s in (10.0, 10.1, 99.0)] == [0.2, 0.6, 0.6]
    again = PhasesLoad(phases.phases, repeat=True)
    assert [nominal_demand(again, at_s) for at_s in (14.0, 16.0, 99.0)] == [0.6, 0.2, 0.2]
