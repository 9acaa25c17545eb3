"""The simulated host answers, acts and fails at the hypervisor's door as a live one would."""

import threading

import pytest

from tests.simulation.rates import vcpus
from virtbalance.control.clock import Clock
from virtbalance.control.hypervisor import Hypervisor
from virtbalance.model.errors import HypervisorLostError
from virtbalance.model.guest import GuestState, VcpuKey
from virtbalance.model.plan import Action, Pin, Reason, Resize, SetStatsPeriod
from virtbalance.model.snapshot import Scope
from virtbalance.model.tick import Outcome, Status
from virtbalance.simulation.build import guest, host, uuid
from virtbalance.simulation.guest import SimGuest, SimMemory, SimVcpu
from virtbalance.simulation.host import SimulatedHost
from virtbalance.simulation.machine import SimMachine, layered_topology
from virtbalance.simulation.want import MIB
from virtbalance.simulation.workload import hog

WHY = Reason("test", "because")
BOTH = Scope.CPU | Scope.MEMORY


def pin(number: int, *cpus: int, vcpu: int = 0) -> Pin:
    return Pin(VcpuKey(uuid(number), vcpu), frozenset(cpus), WHY)


def do(simulated: SimulatedHost, action: Action) -> Outcome:
    (outcome,) = simulated.apply([action], 1.0)
    return outcome


def test_it_fills_the_protocols_of_host_and_clock() -> None:
    simulated = host()
    assert door_of(simulated).host_id == "simulated"
    assert clock_of(simulated.clock).now_ns() == simulated.now_ns > 0


def door_of(door: Hypervisor) -> Hypervisor:
    """Hold the simulator to the protocol, by the type checker."""
    return door


def clock_of(clock: Clock) -> Clock:
    return clock


def test_a_sample_holds_what_was_described() -> None:
    simulated = host(4, 2, vcpus=2, pins=[1, None], memory=SimMemory(balloon_kib=512 * MIB))
    snapshot = simulated.sample(BOTH, 1.0)
    assert [g.name for g in snapshot.guests] == ["g0", "g1"]
    assert [v.affinity for v in snapshot.guests[0].vcpus] == [frozenset({1})] * 2
    assert snapshot.guests[1].vcpus[0].affinity == frozenset(range(4))
    assert [p.id for p in snapshot.pcpus] == [0, 1, 2, 3]
    memory = snapshot.guests[0].memory
    assert memory is not None
    assert memory.actual_kib == 512 * MIB
    assert snapshot.memory is not None


def test_a_sample_of_one_scope_leaves_out_the_other() -> None:
    simulated = host(2, 1, memory=SimMemory())
    cpu, memory = simulated.sample(Scope.CPU, 1.0), simulated.sample(Scope.MEMORY, 1.0)
    assert cpu.memory is None
    assert cpu.guests[0].memory is None
    assert memory.pcpus == ()
    assert memory.guests[0].vcpus == ()


def test_pins_are_carried_out_and_read_back() -> None:
    simulated = host(4, 2)
    assert do(simulated, pin(0, 3)).status is Status.DONE
    assert vcpus(simulated)[VcpuKey(uuid(0), 0)].affinity == frozenset({3})


def test_a_pin_to_cpus_that_are_not_there_is_refused_and_changes_nothing() -> None:
    simulated = host(2, 1)
    assert do(simulated, pin(0, 7)).status is Status.REFUSED
    assert do(simulated, pin(0, 1, 7)).status is Status.REFUSED
    assert vcpus(simulated)[VcpuKey(uuid(0), 0)].affinity == frozenset({0, 1})


def test_of_a_mask_the_cpus_on_line_count() -> None:
    simulated = host(3, 1)
    simulated.set_online(2, online=False)
    assert do(simulated, pin(0, 2)).status is Status.REFUSED
    assert do(simulated, pin(0, 1, 2)).status is Status.DONE
    assert vcpus(simulated)[VcpuKey(uuid(0), 0)].affinity == frozenset({1})


def test_actions_on_what_is_gone_say_so() -> None:
    simulated = host(2, 1)
    assert do(simulated, pin(0, 1, vcpu=5)).status is Status.GONE
    simulated.vanish(uuid(0))
    assert do(simulated, pin(0, 1)).status is Status.GONE


def test_a_balloon_target_above_the_maximum_is_refused() -> None:
    simulated = host(2, 1, memory=SimMemory(maximum_kib=1024 * MIB))
    assert do(simulated, Resize(uuid(0), 1025 * MIB, WHY)).status is Status.REFUSED
    assert do(simulated, Resize(uuid(0), 512 * MIB, WHY)).status is Status.DONE


def test_the_statistics_period_can_be_set() -> None:
    simulated = host(2, 1, memory=SimMemory())
    assert do(simulated, SetStatsPeriod(uuid(0), 5, WHY)).status is Status.DONE
    assert simulated.sample(BOTH, 1.0).guests[0].definition.stats_period_s == 5


def test_a_lost_connection_comes_back_after_so_many_attempts() -> None:
    simulated = host(2, 1)
    simulated.lose_connection(failing_reconnects=2)
    with pytest.raises(HypervisorLostError):
        simulated.sample(BOTH, 1.0)
    with pytest.raises(HypervisorLostError):
        simulated.topology()
    assert do(simulated, pin(0, 1)).status is Status.REFUSED
    for _ in range(2):
        with pytest.raises(HypervisorLostError):
            simulated.reconnect()
    simulated.reconnect()
    assert vcpus(simulated)[VcpuKey(uuid(0), 0)].affinity == frozenset({0, 1})


def test_actions_fail_as_told_and_then_work_again() -> None:
    simulated = host(2, 1)
    simulated.fail_actions(uuid(0), Status.REFUSED, Status.BUSY)
    statuses = [do(simulated, pin(0, 1)).status for _ in range(3)]
    assert statuses == [Status.REFUSED, Status.BUSY, Status.DONE]


def test_a_late_action_happens_later() -> None:
    simulated = host(2, 1)
    simulated.fail_actions(uuid(0), Status.LATE)
    assert do(simulated, pin(0, 1)).status is Status.LATE
    assert vcpus(simulated)[VcpuKey(uuid(0), 0)].affinity == frozenset({0, 1})
    simulated.advance(1.5)
    assert vcpus(simulated)[VcpuKey(uuid(0), 0)].affinity == frozenset({1})


def test_a_guest_may_vanish_between_decision_and_action() -> None:
    simulated = host(2, 2)
    simulated.before_apply(lambda: simulated.vanish(uuid(0)))
    outcomes = simulated.apply([pin(0, 1), pin(1, 1)], 1.0)
    assert [outcome.status for outcome in outcomes] == [Status.GONE, Status.DONE]


def test_late_statistics_are_those_of_the_last_answer() -> None:
    simulated = host(2, 1, memory=SimMemory(balloon_kib=512 * MIB))
    simulated.sample(BOTH, 1.0)
    simulated.answer_late(uuid(0), 3.0)
    simulated.resize(uuid(0), 400 * MIB)
    simulated.advance(2.0)
    late = simulated.sample(BOTH, 1.0).guests[0].memory
    simulated.advance(2.0)
    fresh = simulated.sample(BOTH, 1.0).guests[0].memory
    assert late is not None
    assert fresh is not None
    assert (late.late, late.actual_kib) == (True, 512 * MIB)
    assert (fresh.late, fresh.actual_kib) == (False, 400 * MIB)


def test_a_substitute_has_the_name_and_nothing_else_of_the_old_guest() -> None:
    simulated = host(2, 1, pins=[1])
    simulated.pin(uuid(0), 0, frozenset({0}))
    before = simulated.sample(BOTH, 1.0).guests[0]
    simulated.advance(5)
    new = simulated.substitute(uuid(0))
    after = simulated.sample(BOTH, 1.0).guests[0]
    assert after.name == before.name
    assert after.uuid == new != before.uuid
    assert after.incarnation != before.incarnation
    assert after.vcpus[0].affinity == frozenset({1})
    assert after.vcpus[0].run_ns == 0
    assert [e.kind for e in simulated.events()] == ["guest-stopped", "guest-started"]


def test_a_restarted_guest_keeps_its_uuid_and_counts_from_zero() -> None:
    simulated = host(2, 1)
    before = simulated.sample(BOTH, 1.0).guests[0]
    simulated.advance(5)
    simulated.restart(uuid(0))
    after = simulated.sample(BOTH, 1.0).guests[0]
    assert (after.uuid, after.vcpus[0].run_ns) == (before.uuid, 0)
    assert after.incarnation != before.incarnation


def test_a_paused_guest_neither_runs_nor_moves_its_balloon() -> None:
    simulated = host(2, 1, load=hog(), memory=SimMemory(maximum_kib=1024 * MIB))
    simulated.advance(3)
    simulated.pause(uuid(0))
    before = simulated.sample(BOTH, 1.0).guests[0]
    simulated.resize(uuid(0), 512 * MIB)
    simulated.advance(5)
    paused = simulated.sample(BOTH, 1.0).guests[0]
    assert paused.state is GuestState.PAUSED
    assert paused.vcpus[0].run_ns == before.vcpus[0].run_ns
    assert paused.memory is not None
    assert before.memory is not None
    assert paused.memory.actual_kib == 1024 * MIB
    assert paused.memory.last_update_s == before.memory.last_update_s
    simulated.resume(uuid(0))
    simulated.advance(5)
    resumed = simulated.sample(BOTH, 1.0).guests[0]
    assert resumed.vcpus[0].run_ns - paused.vcpus[0].run_ns == pytest.approx(5e9, rel=0.01)
    assert resumed.memory is not None
    assert resumed.memory.actual_kib == 512 * MIB


def test_what_is_due_happens_at_its_time() -> None:
    simulated = host(2, 1)
    seen: list[float] = []
    simulated.at(2.5, lambda: seen.append(simulated.now_s))
    simulated.at(1.0, lambda: seen.append(simulated.now_s))
    simulated.advance(2.0)
    assert seen == [1.0]
    simulated.advance(1.0)
    assert seen == [1.0, 2.5]


def test_waiting_ends_early_when_woken() -> None:
    simulated = host(2, 1)
    wake = threading.Event()
    simulated.at(1.5, wake.set)
    simulated.clock.sleep_until(simulated.now_ns + 10_000_000_000, wake)
    assert simulated.now_s == 1.5


def test_clocks_agree() -> None:
    simulated = host(2, 1)
    before = simulated.clock.now_ns(), simulated.clock.wall_s()
    simulated.advance(7.25)
    assert simulated.clock.now_ns() - before[0] == 7_250_000_000
    assert simulated.clock.wall_s() - before[1] == 7.25


def test_vcpus_are_plugged_and_unplugged_with_holes() -> None:
    simulated = host(2, 1, vcpus=3)
    simulated.unplug(uuid(0), 1)
    simulated.plug(uuid(0), 5, SimVcpu(hog(), frozenset({1})))
    simulated.advance(1)
    snapshot = simulated.sample(Scope.CPU, 1.0)
    assert [v.index for v in snapshot.guests[0].vcpus] == [0, 2, 5]
    assert snapshot.guests[0].vcpus[2].affinity == frozenset({1})


def test_a_thread_whose_cpus_go_off_line_runs_anywhere_and_returns() -> None:
    simulated = host(3, 2, load=hog(), pins=[2, 0])
    simulated.set_online(2, online=False)
    key = VcpuKey(uuid(0), 0)
    assert vcpus(simulated)[key].affinity == frozenset({0, 1})
    assert [p.online for p in simulated.topology().pcpus] == [True, True, False]
    assert [p.id for p in simulated.sample(Scope.CPU, 1.0).pcpus] == [0, 1]
    simulated.set_online(2, online=True)
    assert vcpus(simulated)[key].affinity == frozenset({2})


def test_a_guest_can_arrive_while_time_passes() -> None:
    simulated = host(2, 1)
    simulated.at(3.0, lambda: simulated.start(guest(7, hog(), pin=1)))
    simulated.advance(4.0)
    late = vcpus(simulated)[VcpuKey(uuid(7), 0)]
    assert late.run_ns == pytest.approx(1e9, rel=0.01)
    assert [e.kind for e in simulated.events()] == ["guest-started"]


def test_memory_shows_its_node_where_there_are_several() -> None:
    guests = [SimGuest("a", memory_node=1), SimGuest("b")]
    two = SimulatedHost(SimMachine(layered_topology(nodes=2)), guests)
    seen = {g.name: g.memory_by_node for g in two.sample(Scope.CPU, 1.0).guests}
    assert seen == {"a": {1: SimMemory().maximum_kib}, "b": None}
    one = SimulatedHost(SimMachine(layered_topology()), guests)
    assert {g.memory_by_node for g in one.sample(Scope.CPU, 1.0).guests} == {None}
