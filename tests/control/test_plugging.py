"""vCPUs and pCPUs that come and go while the vCPU scheduler runs on a simulated host."""

from pathlib import Path
from typing import Any

from tests.control.programs import affinities, cpu_role, run
from virtbalance.control.journal import Journal
from virtbalance.model.cpu_estimate import CpuEstimate
from virtbalance.model.guest import VcpuKey
from virtbalance.model.plan import CpuPlan, Pin, Reason
from virtbalance.simulation.build import host, uuid
from virtbalance.simulation.guest import SimVcpu
from virtbalance.simulation.host import SimulatedHost
from virtbalance.simulation.workload import hog

WHY = Reason("deal", "one after the other")
ONLY_0 = frozenset({0})


class Deal:
    """Deals vCPUs out to pCPUs in the order of both: where each should be is easily seen."""

    name = "deal"

    def decide(
        self, state: Any, estimate: CpuEstimate, config: Any, now_s: float
    ) -> tuple[CpuPlan, Any]:
        pcpus = sorted(estimate.capacity)
        homes = {
            vcpu.key: frozenset({pcpus[number % len(pcpus)]})
            for number, vcpu in enumerate(estimate.vcpus)
        }
        pins = [
            Pin(vcpu.key, homes[vcpu.key], WHY)
            for vcpu in estimate.vcpus
            if vcpu.fixed is None and vcpu.affinity != homes[vcpu.key]
        ]
        return CpuPlan(tuple(pins)), state


def homes_at(simulated: SimulatedHost, *times_s: float) -> list[dict[VcpuKey, set[int]]]:
    """Have the affinities noted at some times."""
    seen: list[dict[VcpuKey, set[int]]] = []
    for at_s in times_s:
        simulated.at(
            at_s, lambda: seen.append({k: set(m) for k, m in affinities(simulated).items()})
        )
    return seen


def test_a_pcpu_goes_off_line_and_comes_back(tmp_path: Path) -> None:
    simulated = host(3, 3, load=hog(), pins=0)
    before = affinities(simulated)
    simulated.at(10.5, lambda: simulated.set_online(2, online=False))
    simulated.at(30.5, lambda: simulated.set_online(2, online=True))
    seen = homes_at(simulated, 9.5, 10.6, 20.5, 40.5)
    result = run(simulated, cpu_role(Deal()), tmp_path, 45)
    g2 = VcpuKey(uuid(2), 0)
    assert [homes[g2] for homes in seen] == [{2}, {0, 1}, {0}, {2}]
    assert result.events("foreign-change") == [], "the kernel widened the mask, nobody re-pinned it"
    assert (result.complete, affinities(simulated)) == (True, before)


def test_a_pcpu_that_was_never_on_line_is_used_when_it_is(tmp_path: Path) -> None:
    simulated = host(2, 2, load=hog(), pins=0)
    simulated.set_online(1, online=False)
    simulated.at(10.5, lambda: simulated.set_online(1, online=True))
    seen = homes_at(simulated, 9.5, 15.5)
    run(simulated, cpu_role(Deal()), tmp_path, 20)
    assert [homes[VcpuKey(uuid(1), 0)] for homes in seen] == [{0}, {1}]


def test_a_vcpu_plugged_in_is_served_and_put_back(tmp_path: Path) -> None:
    simulated = host(2, 1, load=hog(), vcpus=1, pins=0)
    simulated.at(5.5, lambda: simulated.plug(uuid(0), 7, SimVcpu(hog(), ONLY_0)))
    seen = homes_at(simulated, 12.5)
    result = run(simulated, cpu_role(Deal()), tmp_path, 14)
    assert seen == [{VcpuKey(uuid(0), 0): {0}, VcpuKey(uuid(0), 7): {1}}]
    assert affinities(simulated)[VcpuKey(uuid(0), 7)] == ONLY_0
    assert result.complete


def test_a_vcpu_plugged_in_anew_is_another_thread_and_nobody_re_pinned_it(tmp_path: Path) -> None:
    simulated = host(2, 1, load=hog(), vcpus=2, pins=0)
    key = VcpuKey(uuid(0), 1)
    both = frozenset({0, 1})
    simulated.at(8.5, lambda: simulated.unplug(*key))
    simulated.at(12.5, lambda: simulated.plug(*key, SimVcpu(hog(), both)))
    seen = homes_at(simulated, 7.5, 12.6, 19.5)
    result = run(simulated, cpu_role(Deal()), tmp_path, 20)
    assert [homes[key] for homes in seen] == [{1}, {0, 1}, {1}]
    assert result.events("foreign-change") == []
    assert affinities(simulated)[key] == both, "what the new thread had, not the old one"


def test_a_vcpu_plugged_in_anew_with_our_mask_keeps_its_original(tmp_path: Path) -> None:
    simulated = host(2, 1, load=hog(), vcpus=2, pins=0)
    key = VcpuKey(uuid(0), 1)
    simulated.at(8.5, lambda: simulated.unplug(*key))
    simulated.at(12.5, lambda: simulated.plug(*key, SimVcpu(hog(), frozenset({1}))))
    run(simulated, cpu_role(Deal()), tmp_path, 20)
    assert affinities(simulated)[key] == ONLY_0


def test_an_unplugged_vcpu_does_not_cost_the_others_their_originals(tmp_path: Path) -> None:
    simulated = host(2, 1, load=hog(), vcpus=4, pins=0)
    simulated.at(8.5, lambda: simulated.unplug(uuid(0), 1))
    result = run(simulated, cpu_role(Deal()), tmp_path, 12)
    assert set(affinities(simulated).values()) == {ONLY_0}
    assert result.complete
    assert Journal(tmp_path, simulated.boot_id).entries() == {}


def test_a_host_that_stood_still_is_no_reason_to_move_anybody(tmp_path: Path) -> None:
    simulated = host(2, 4, load=hog(), pins=[0, 0, 1, 1])
    simulated.at(20.5, lambda: simulated.advance(600.0))
    result = run(simulated, cpu_role(), tmp_path, 40)
    assert [tick.outcomes for tick in result.ticks if tick.outcomes] == []
    assert result.events("overrun") == ["599 ticks skipped: the last one took too long"]
    last = result.ticks[-1]
    assert last.snapshot.taken_ns - result.ticks[0].snapshot.taken_ns == 638_000_000_000
    assert isinstance(last.estimate, CpuEstimate)
    assert {round(vcpu.run_ratio, 2) for vcpu in last.estimate.vcpus} == {0.5}
