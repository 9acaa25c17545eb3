"""What every filling of the Hypervisor protocol must do, as one suite of tests.

A filling is tested by a subclass of ``HypervisorContract`` with a fixture ``world``; what it can't
do is left out of ``world.abilities``, and the tests that need it are skipped.
"""

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Flag, auto

import pytest

from virtbalance.control.hypervisor import Hypervisor
from virtbalance.model.errors import HypervisorLostError
from virtbalance.model.guest import GuestState, VcpuKey
from virtbalance.model.plan import Action, Pin, Reason, Resize, SetStatsPeriod
from virtbalance.model.snapshot import GuestSample, Scope, Snapshot
from virtbalance.model.tick import Outcome, Status

DEADLINE_S = 5.0
BOTH = Scope.CPU | Scope.MEMORY
NOBODY = "ffffffff-ffff-4fff-8fff-ffffffffffff"
WHY = Reason("contract", "a test of the contract")


class Can(Flag):
    """What a filling is able to show or do."""

    NOTHING = 0
    RUN_TIMES = auto()
    """Run times of vCPUs that are real: busy vCPUs' grow."""
    WAIT_TIMES = auto()
    HOST_CPUS = auto()
    HOST_MEMORY = auto()
    BALLOON_MOVES = auto()
    """The balloon reaches its target by itself."""
    START_AND_STOP = auto()
    PAUSE = auto()
    EVENTS = auto()
    CLOSES = auto()
    """Is gone once it is closed."""
    RECONNECT = auto()


@dataclass
class World:
    """A hypervisor with at least one running guest of at least one vCPU, and hands to change it."""

    hypervisor: Hypervisor
    abilities: Can
    start: Callable[[str], str] | None = None
    """Start a guest of this name; returns its UUID."""
    stop: Callable[[str], None] | None = None
    pause: Callable[[str], None] | None = None
    resume: Callable[[str], None] | None = None
    let_pass: Callable[[float], None] = time.sleep
    """Let so many seconds go by."""

    def sample(self, scope: Scope = BOTH) -> Snapshot:
        return self.hypervisor.sample(scope, DEADLINE_S)

    def guest(self, scope: Scope = BOTH) -> GuestSample:
        return self.sample(scope).guests[0]

    def find(self, uuid: str) -> GuestSample | None:
        return next((guest for guest in self.sample().guests if guest.uuid == uuid), None)

    def apply(self, *actions: Action) -> tuple[Outcome, ...]:
        return self.hypervisor.apply(actions, DEADLINE_S)

    def status(self, action: Action) -> Status:
        (outcome,) = self.apply(action)
        return outcome.status

    def eventually(self, holds: Callable[[], bool], limit_s: float = 20.0) -> None:
        for _ in range(round(limit_s / 0.05)):
            if holds():
                return
            self.let_pass(0.05)
        assert holds()


def pin(uuid: str, vcpu: int, cpus: Iterable[int]) -> Pin:
    return Pin(VcpuKey(uuid, vcpu), frozenset(cpus), WHY)


def resize(uuid: str, target_kib: int) -> Resize:
    return Resize(uuid, target_kib, WHY)


class HypervisorContract:
    """Subclass it, give a fixture ``world``, and pytest does the rest."""

    @pytest.fixture
    def world(self) -> World:
        raise NotImplementedError

    @pytest.fixture(autouse=True)
    def _skip_what_it_can_not_do(self, request: pytest.FixtureRequest, world: World) -> None:
        needs = request.node.get_closest_marker("needs")
        missing = needs.args[0] & ~world.abilities if needs else Can.NOTHING
        if missing:
            pytest.skip(f"can't: {missing}")

    # Identity

    def test_host_id_is_stable_and_safe_as_a_file_name(self, world: World) -> None:
        assert re.fullmatch(r"[A-Za-z0-9._-]{1,120}", world.hypervisor.host_id)
        assert world.hypervisor.host_id == world.hypervisor.host_id
        assert isinstance(world.hypervisor.boot_id, str)

    # Looking

    def test_topology_has_usable_cpus_and_is_the_one_sampled(self, world: World) -> None:
        topology = world.hypervisor.topology()
        assert topology.usable
        assert topology.map_length > max(topology.by_id)
        assert world.sample().topology == topology

    def test_guests_are_sorted_and_so_are_their_vcpus(self, world: World) -> None:
        snapshot = world.sample()
        uuids = [guest.uuid for guest in snapshot.guests]
        assert uuids
        assert uuids == sorted(set(uuids))
        for guest in snapshot.guests:
            indices = [vcpu.index for vcpu in guest.vcpus]
            assert indices == sorted(set(indices))

    def test_a_sample_holds_what_was_asked_for(self, world: World) -> None:
        assert world.guest(Scope.MEMORY).memory is not None
        assert world.guest(Scope.CPU).vcpus
        both = world.guest(BOTH)
        assert both.memory is not None
        assert both.vcpus

    def test_times_go_forward_and_counters_never_back(self, world: World) -> None:
        before = world.sample()
        world.let_pass(0.05)
        after = world.sample()
        assert before.taken_ns < after.taken_ns
        assert before.wall_s < after.wall_s
        old = {(g.uuid, v.index): v for g in before.guests for v in g.vcpus}
        for guest in after.guests:
            for vcpu in guest.vcpus:
                earlier = old[guest.uuid, vcpu.index]
                assert vcpu.read_ns > earlier.read_ns
                assert vcpu.run_ns >= earlier.run_ns
                assert (vcpu.wait_ns or 0) >= (earlier.wait_ns or 0)

    def test_memory_figures_make_sense(self, world: World) -> None:
        for guest in world.sample(Scope.MEMORY).guests:
            memory = guest.memory
            assert memory is not None
            assert not memory.late
            assert 0 < memory.actual_kib <= memory.maximum_kib

    @pytest.mark.needs(Can.WAIT_TIMES)
    def test_waiting_times_are_told(self, world: World) -> None:
        assert all(vcpu.wait_ns is not None for vcpu in world.guest().vcpus)

    @pytest.mark.needs(Can.RUN_TIMES)
    def test_run_times_are_no_longer_than_the_time_that_passed(self, world: World) -> None:
        before = world.guest(Scope.CPU)
        world.let_pass(0.3)
        after = world.guest(Scope.CPU)
        for old, new in zip(before.vcpus, after.vcpus, strict=True):
            assert new.run_ns - old.run_ns <= (new.read_ns - old.read_ns) * 1.1 + 20_000_000

    @pytest.mark.needs(Can.HOST_CPUS)
    def test_every_online_cpu_is_counted(self, world: World) -> None:
        snapshot = world.sample(Scope.CPU)
        online = {pcpu.id for pcpu in snapshot.topology.pcpus if pcpu.online}
        assert {pcpu.id for pcpu in snapshot.pcpus} == online

    @pytest.mark.needs(Can.HOST_MEMORY)
    def test_host_memory_is_told(self, world: World) -> None:
        memory = world.sample(Scope.MEMORY).memory
        assert memory is not None
        assert 0 < memory.available_kib <= memory.total_kib

    # Changing

    def test_nothing_to_do(self, world: World) -> None:
        assert world.apply() == ()

    def test_a_pin_shows_in_the_next_sample_and_touches_nobody_else(self, world: World) -> None:
        before = world.guest(Scope.CPU)
        first, *others = before.vcpus
        for cpu in sorted(world.hypervisor.topology().usable):
            assert world.status(pin(before.uuid, first.index, {cpu})) is Status.DONE
            after = world.guest(Scope.CPU)
            assert after.vcpus[0].affinity == frozenset({cpu})
            assert [v.affinity for v in after.vcpus[1:]] == [v.affinity for v in others]

    def test_a_pin_can_be_taken_back(self, world: World) -> None:
        before = world.guest(Scope.CPU)
        affinity = before.vcpus[0].affinity
        assert affinity is not None
        assert world.status(pin(before.uuid, before.vcpus[0].index, {min(affinity)})) is Status.DONE
        assert world.status(pin(before.uuid, before.vcpus[0].index, affinity)) is Status.DONE
        usable = world.hypervisor.topology().usable
        after = world.guest(Scope.CPU).vcpus[0].affinity
        assert after is not None
        assert after & usable == affinity & usable

    def test_senseless_pins_are_refused_and_change_nothing(self, world: World) -> None:
        before = world.guest(Scope.CPU)
        index = before.vcpus[0].index
        beyond = world.hypervisor.topology().map_length
        for cpus in (set[int](), {beyond}, {0, beyond}, {100_000}):
            assert world.status(pin(before.uuid, index, cpus)) is Status.REFUSED
        assert world.guest(Scope.CPU).vcpus[0].affinity == before.vcpus[0].affinity

    def test_a_resize_within_the_maximum_is_accepted(self, world: World) -> None:
        guest = world.guest(Scope.MEMORY)
        assert guest.memory is not None
        assert world.status(resize(guest.uuid, guest.memory.maximum_kib // 2)) is Status.DONE

    @pytest.mark.needs(Can.BALLOON_MOVES)
    def test_a_balloon_reaches_its_target(self, world: World) -> None:
        guest = world.guest(Scope.MEMORY)
        assert guest.memory is not None
        target_kib = guest.memory.maximum_kib * 3 // 4
        world.apply(resize(guest.uuid, target_kib))

        def has_moved() -> bool:
            memory = world.guest(Scope.MEMORY).memory
            return memory is not None and memory.actual_kib == target_kib

        world.eventually(has_moved)

    def test_a_senseless_resize_is_refused_and_changes_nothing(self, world: World) -> None:
        before = world.guest(Scope.MEMORY)
        assert before.memory is not None
        for target_kib in (before.memory.maximum_kib + 1, 0):
            assert world.status(resize(before.uuid, target_kib)) is Status.REFUSED
        after = world.guest(Scope.MEMORY).memory
        assert after is not None
        assert after.actual_kib == before.memory.actual_kib

    def test_a_statistics_period_is_accepted(self, world: World) -> None:
        assert world.status(SetStatsPeriod(world.guest().uuid, 2, WHY)) is Status.DONE

    def test_one_outcome_an_action_in_order_whatever_becomes_of_it(self, world: World) -> None:
        guest = world.guest()
        actions = (
            resize(NOBODY, 1024),
            pin(guest.uuid, guest.vcpus[0].index, world.hypervisor.topology().usable),
            pin(NOBODY, 0, {0}),
            pin(guest.uuid, guest.vcpus[0].index, ()),
        )
        outcomes = world.apply(*actions)
        assert tuple(outcome.action for outcome in outcomes) == actions
        statuses = [outcome.status for outcome in outcomes]
        assert statuses == [Status.GONE, Status.DONE, Status.GONE, Status.REFUSED]

    def test_without_time_nothing_is_done_and_nothing_raised(self, world: World) -> None:
        guest = world.guest(Scope.MEMORY)
        assert guest.memory is not None
        action = resize(guest.uuid, guest.memory.maximum_kib)
        (outcome,) = world.hypervisor.apply([action], 0.0)
        assert outcome.status in (Status.BUSY, Status.LATE, Status.DONE)

    # Guests that come and go

    @pytest.mark.needs(Can.START_AND_STOP)
    def test_a_new_guest_appears_and_a_stopped_one_vanishes(self, world: World) -> None:
        assert world.start is not None
        assert world.stop is not None
        uuid = world.start("newcomer")
        world.eventually(lambda: world.find(uuid) is not None)
        world.stop(uuid)
        world.eventually(lambda: world.find(uuid) is None)
        world.eventually(lambda: world.status(resize(uuid, 1024)) is Status.GONE)
        assert world.guest().uuid != uuid

    @pytest.mark.needs(Can.START_AND_STOP)
    def test_a_guest_that_just_ended_is_gone_not_an_error(self, world: World) -> None:
        assert world.start is not None
        assert world.stop is not None
        uuid = world.start("shortlived")
        world.eventually(lambda: world.find(uuid) is not None)
        world.stop(uuid)
        actions = (resize(uuid, 1024), pin(uuid, 0, world.hypervisor.topology().usable))
        assert [outcome.status for outcome in world.apply(*actions)] == [Status.GONE] * 2

    @pytest.mark.needs(Can.START_AND_STOP)
    def test_another_run_under_the_same_name_is_another_incarnation(self, world: World) -> None:
        assert world.start is not None
        assert world.stop is not None
        seen = set()
        for _ in range(2):
            uuid = world.start("replaced")
            world.eventually(lambda uuid=uuid: world.find(uuid) is not None)  # type: ignore[misc]
            guest = world.find(uuid)
            assert guest is not None
            seen.add((uuid, guest.incarnation))
            world.stop(uuid)
        assert len(seen) == 2

    @pytest.mark.needs(Can.PAUSE)
    def test_a_paused_guest_is_seen_as_such(self, world: World) -> None:
        assert world.pause is not None
        assert world.resume is not None
        uuid = world.guest().uuid

        def state() -> GuestState | None:
            guest = world.find(uuid)
            return guest.state if guest else None

        assert state() is GuestState.RUNNING
        world.pause(uuid)
        world.eventually(lambda: state() is GuestState.PAUSED)
        world.resume(uuid)
        world.eventually(lambda: state() is GuestState.RUNNING)

    @pytest.mark.needs(Can.START_AND_STOP | Can.EVENTS)
    def test_events_tell_of_guests_once(self, world: World) -> None:
        assert world.start is not None
        assert world.stop is not None
        world.hypervisor.events()
        uuid = world.start("announced")
        world.eventually(lambda: world.find(uuid) is not None)
        world.stop(uuid)
        kinds: list[str] = []

        def has_heard_all() -> bool:
            world.sample()
            kinds.extend(event.kind for event in world.hypervisor.events() if event.uuid == uuid)
            return {"guest-started", "guest-stopped"} <= set(kinds)

        world.eventually(has_heard_all)
        assert kinds.count("guest-started") == kinds.count("guest-stopped") == 1

    # The end

    def test_close_may_be_called_twice(self, world: World) -> None:
        world.hypervisor.close()
        world.hypervisor.close()

    @pytest.mark.needs(Can.CLOSES)
    def test_nothing_is_there_any_more_after_close(self, world: World) -> None:
        uuid = world.guest().uuid
        world.hypervisor.close()
        with pytest.raises(HypervisorLostError):
            world.sample()
        (outcome,) = world.apply(resize(uuid, 1024))
        assert outcome.status in (Status.REFUSED, Status.GONE)

    @pytest.mark.needs(Can.RECONNECT)
    def test_reconnecting_makes_it_whole_again(self, world: World) -> None:
        before = world.guest()
        world.hypervisor.close()
        world.hypervisor.reconnect()
        after = world.guest()
        assert (after.uuid, after.incarnation) == (before.uuid, before.incarnation)
