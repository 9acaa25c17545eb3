"""Real QEMU processes, without an operating system, seen by the fast path."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import libvirt
import pytest

from tests.hypervisor.bare_guests import BareGuests, embedded_guests
from virtbalance.hypervisor import LibvirtHypervisor, connect
from virtbalance.hypervisor.guest_reading import Guest
from virtbalance.hypervisor.node_memory import memory_by_node_kib
from virtbalance.hypervisor.settings_xml import NAMESPACE
from virtbalance.hypervisor.vcpu_threads import confirmed_threads
from virtbalance.model.guest import GuestSettings, VcpuKey
from virtbalance.model.plan import Pin, Reason, Resize, SetStatsPeriod
from virtbalance.model.snapshot import GuestSample, Scope
from virtbalance.model.tick import Status
from virtbalance.model.topology import NumaNode

pytestmark = [pytest.mark.libvirt, pytest.mark.lab]

BOTH = Scope.CPU | Scope.MEMORY
WHY = Reason("test", "test")
PLUGGABLE = """<vcpus><vcpu id='0' enabled='yes' hotpluggable='no' order='1'/>
<vcpu id='1' enabled='no' hotpluggable='yes'/><vcpu id='2' enabled='no' hotpluggable='yes'/>
<vcpu id='3' enabled='no' hotpluggable='yes'/></vcpus>"""
UUID = "11111111-2222-4333-8444-555555555555"


class Host:
    def __init__(self, guests: BareGuests, hypervisor: LibvirtHypervisor) -> None:
        self.guests = guests
        self.hypervisor = hypervisor

    def start(self, name: str, **settings: object) -> Any:
        domain = self.guests.start(name, **settings)
        eventually(lambda: self.find(name))
        return domain

    def find(self, name: str, scope: Scope = BOTH) -> GuestSample | None:
        guests = self.hypervisor.sample(scope, 2.0).guests
        return next((guest for guest in guests if guest.name == name), None)

    def guest(self, name: str) -> GuestSample:
        found = self.find(name)
        assert found is not None
        return found

    def known(self, name: str) -> Guest:
        session = self.hypervisor._session
        assert session is not None
        found = session._guests.known(self.guest(name).uuid)
        assert found is not None
        return found

    def list_now(self) -> None:
        session = self.hypervisor._session
        assert session is not None
        session._guests._next_list_s = 0.0


def eventually(holds: Callable[[], object], limit_s: float = 5.0) -> None:
    end_s = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.02)


@pytest.fixture
def host() -> Iterator[Host]:
    guests = embedded_guests()
    hypervisor = connect(guests.uri)
    yield Host(guests, hypervisor)
    hypervisor.close()
    guests.close()


def test_a_guest_that_is_being_dumped_says_so_until_it_is_over(host: Host, tmp_path: Path) -> None:
    """The dump goes to a pipe that nobody reads, so it lasts."""
    domain = host.start("dumped", memory_mib=64)
    assert host.guest("dumped").has_job is False
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    dump = threading.Thread(target=domain.coreDump, args=(str(pipe), libvirt.VIR_DUMP_LIVE))
    dump.start()
    eventually(lambda: host.guest("dumped").has_job)
    os.set_blocking(reader, True)
    while os.read(reader, 1 << 20):
        pass
    dump.join()
    os.close(reader)
    assert host.guest("dumped").has_job is False


def test_the_kernel_and_libvirt_tell_the_same_times(host: Host) -> None:
    domain = host.start("one")
    time.sleep(1.0)
    ours = host.guest("one").vcpus
    theirs = {index: run_ns for index, _state, run_ns, _cpu in domain.vcpus()[0]}
    assert host.known("one").threads is not None, "the fast path is in use"
    assert [vcpu.index for vcpu in ours] == sorted(theirs)
    for vcpu in ours:
        assert vcpu.run_ns == pytest.approx(theirs[vcpu.index], abs=50_000_000)
    assert [event.kind for event in host.hypervisor.events()] == ["guest-started"]


def test_a_pin_is_seen_by_the_kernel_and_by_libvirt(host: Host) -> None:
    domain = host.start("one")
    key = VcpuKey(host.guest("one").uuid, 1)
    (outcome,) = host.hypervisor.apply([Pin(key, frozenset({1}), WHY)], 2.0)
    assert (outcome.status, outcome.text) == (Status.DONE, "")
    threads = host.known("one").threads
    assert threads is not None
    assert os.sched_getaffinity(threads[1]) == {1}
    assert domain.vcpuPinInfo()[1][:2] == (False, True)


@pytest.mark.lab_full
def test_pins_of_all_vcpus_leave_emulator_and_io_threads_where_they_may_run(host: Host) -> None:
    domain = host.start("one", extra="<iothreads>1</iothreads>")
    tasks = Path("/proc", str(host.guests.pid("one")), "task")
    uuid, threads = host.guest("one").uuid, host.known("one").threads
    assert threads is not None

    def others() -> dict[str, set[int]]:
        ids = {path.name for path in tasks.iterdir()} - {str(thread) for thread in threads.values()}
        return {thread_id: os.sched_getaffinity(int(thread_id)) for thread_id in ids}

    before = others()
    pins = [Pin(VcpuKey(uuid, index), frozenset({1}), WHY) for index in (0, 1)]
    assert {o.status for o in host.hypervisor.apply(pins, 2.0)} == {Status.DONE}
    assert "IO iothread1" in {(tasks / i / "comm").read_text().strip() for i in before}
    assert set(map(frozenset, others().values())) == {frozenset(os.sched_getaffinity(0))}
    assert domain.emulatorPinInfo()[:2] == (True, True)


@pytest.mark.lab_full
def test_somebody_elses_pin_is_seen_in_the_next_sample(host: Host) -> None:
    host.start("one").pinVcpu(0, (False, True))
    assert host.guest("one").vcpus[0].affinity == frozenset({1})


@pytest.mark.lab_full
def test_a_vcpu_that_is_not_plugged_in_is_not_pinned(host: Host) -> None:
    host.start("one", vcpus=1, most_vcpus=3)
    key = VcpuKey(host.guest("one").uuid, 2)
    (outcome,) = host.hypervisor.apply([Pin(key, frozenset({1}), WHY)], 2.0)
    assert (outcome.status, outcome.text) == (Status.GONE, "it has no vCPU 2")


def test_a_vcpu_plugged_in_is_found_without_a_list_whatever_its_number(host: Host) -> None:
    domain = host.start("one", vcpus=1, most_vcpus=4, extra=PLUGGABLE)
    assert [vcpu.index for vcpu in host.guest("one").vcpus] == [0]
    domain.setVcpu("2", 1, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    eventually(lambda: [vcpu.index for vcpu in host.guest("one").vcpus] == [0, 2])
    threads = host.known("one").threads
    assert threads is not None, "the fast path is in use"
    key = VcpuKey(host.guest("one").uuid, 2)
    assert host.hypervisor.apply([Pin(key, frozenset({1}), WHY)], 2.0)[0].status is Status.DONE
    assert os.sched_getaffinity(threads[2]) == {1}
    assert {event.kind for event in host.hypervisor.events()} == {"guest-started"}


@pytest.mark.lab_full
def test_a_doubt_that_comes_up_while_a_vcpu_is_plugged_in_is_looked_into_again(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    domain = host.start("one", vcpus=1, most_vcpus=4, extra=PLUGGABLE)
    doubts = ["libvirt is not there yet"]

    def doubted(pid: int, proc: Path, ask: Any) -> tuple[Any, str]:
        return (None, doubts.pop()) if doubts else confirmed_threads(pid, proc, ask)

    monkeypatch.setattr("virtbalance.hypervisor.guest_reading.confirmed_threads", doubted)
    domain.setVcpu("1", 1, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    eventually(lambda: host.find("one") and host.known("one").threads is None)
    assert doubts == []
    assert [vcpu.index for vcpu in host.guest("one").vcpus] == [0, 1], "libvirt tells meanwhile"
    eventually(lambda: host.find("one") and host.known("one").threads is not None)
    assert [vcpu.index for vcpu in host.guest("one").vcpus] == [0, 1]


@pytest.mark.lab_full
def test_a_statistics_period_is_set_live(host: Host) -> None:
    domain = host.start("one")
    action = SetStatsPeriod(host.guest("one").uuid, 7, WHY)
    assert host.hypervisor.apply([action], 2.0)[0].status is Status.DONE
    assert "<stats period='7'/>" in domain.XMLDesc()


@pytest.mark.lab_full
def test_only_the_persistent_definition_says_which_pins_are_the_owners(host: Host) -> None:
    pins = "<cputune><vcpupin vcpu='1' cpuset='0'/></cputune>"
    host.guests.define("kept", extra=pins).create()
    host.start("transient", extra=pins)
    eventually(lambda: host.find("kept"))
    key = VcpuKey(host.guest("kept").uuid, 0)
    host.hypervisor.apply([Pin(key, frozenset({0}), WHY)], 2.0)
    host.list_now()
    time.sleep(0.3)
    assert host.guest("kept").definition.pinned_vcpus == {1}, "ours on vCPU 0 does not count"
    assert host.guest("transient").definition.pinned_vcpus == frozenset()


@pytest.mark.lab_full
def test_wishes_survive_a_restart_only_where_the_guest_does(host: Host) -> None:
    domain = host.guests.define("kept")
    domain.create()
    eventually(lambda: host.find("kept"))
    host.hypervisor.write_settings("kept", GuestSettings(weight=2.0))
    eventually(lambda: host.guest("kept").settings.weight == 2.0)
    domain.destroy()
    domain.create()
    eventually(lambda: host.find("kept"))
    assert host.guest("kept").settings.weight == 2.0


@pytest.mark.lab_full
def test_metadata_in_the_definition_is_read_from_the_start(host: Host) -> None:
    metadata = f'<vb:guest xmlns:vb="{NAMESPACE}" weight="3" maximum="24 MiB"/>'
    host.start("one", metadata=metadata)
    assert host.guest("one").settings == GuestSettings(3.0, None, 24 * 1024)


@pytest.mark.parametrize("scope", [Scope.CPU, Scope.MEMORY, BOTH])
def test_a_guest_killed_between_two_samples_is_gone_in_the_next(host: Host, scope: Scope) -> None:
    host.start("one")
    host.start("other")
    os.kill(host.guests.pid("one"), signal.SIGKILL)
    eventually(lambda: host.find("one", scope) is None)
    assert host.find("other", scope) is not None
    eventually(lambda: "guest-stopped" in {event.kind for event in host.hypervisor.events()})


@pytest.mark.lab_full
def test_a_guest_destroyed_while_it_is_sampled(host: Host) -> None:
    host.start("other")
    for _ in range(3):
        domain = host.start("one")
        ends_s = time.monotonic() + 0.3
        while time.monotonic() < ends_s:
            host.hypervisor.sample(BOTH, 2.0)
            if time.monotonic() > ends_s - 0.15:
                domain.destroyFlags(0) if domain.isActive() else None
        assert host.find("one") is None
        assert host.find("other") is not None


def test_a_guest_replaced_under_its_name_and_uuid_is_another_incarnation(host: Host) -> None:
    domain = host.start("one", uuid=UUID)
    before = host.guest("one")
    key = VcpuKey(UUID, 0)
    assert host.hypervisor.apply([Pin(key, frozenset({0}), WHY)], 2.0)[0].status is Status.DONE
    domain.destroy()
    host.guests.start("one", uuid=UUID)
    eventually(lambda: (now := host.find("one")) and now.incarnation != before.incarnation)
    after = host.guest("one")
    assert after.uuid == before.uuid
    assert after.vcpus[0].affinity == frozenset(os.sched_getaffinity(0))
    assert host.hypervisor.apply([Pin(key, frozenset({1}), WHY)], 2.0)[0].status is Status.DONE
    assert host.guest("one").vcpus[0].affinity == frozenset({1})


@pytest.mark.lab_full
def test_a_paused_guest_keeps_its_counters_and_its_balloon(host: Host) -> None:
    domain = host.start("one")
    domain.suspend()
    eventually(lambda: host.guest("one").state == "paused")
    paused = host.guest("one")
    assert len(paused.vcpus) == 2
    assert paused.memory is not None
    assert not paused.memory.late
    assert host.hypervisor.apply([Resize(paused.uuid, 20_000, WHY)], 2.0)[0].status is Status.DONE


@pytest.mark.lab_full
def test_a_guest_whose_threads_are_doubted_is_sampled_by_libvirt(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "virtbalance.hypervisor.guest_reading.confirmed_threads", lambda *_: (None, "a test doubts")
    )
    host.start("one")
    guest = host.guest("one")
    assert host.known("one").threads is None
    assert [vcpu.index for vcpu in guest.vcpus] == [0, 1]
    assert all(vcpu.wait_ns is not None for vcpu in guest.vcpus)
    assert all(vcpu.affinity == frozenset(os.sched_getaffinity(0)) for vcpu in guest.vcpus)
    told = [event for event in host.hypervisor.events() if event.kind == "slow-path"]
    assert [event.text for event in told] == [
        "one: CPU time comes from libvirt, which is slower: a test doubts"
    ]
    action = Pin(VcpuKey(guest.uuid, 0), frozenset({1}), WHY)
    assert host.hypervisor.apply([action], 2.0)[0].status is Status.DONE
    assert host.guest("one").vcpus[0].affinity == frozenset({1})


def test_memory_by_node_is_read_on_hosts_with_several(host: Host) -> None:
    host.start("numa")
    assert host.guest("numa").memory_by_node is None, "one node: there is nothing to tell"
    if memory_by_node_kib(host.guests.pid("numa"), Path("/"), huge=False) is None:
        pytest.skip("libvirt could not give the guest a control group that counts memory")
    session = host.hypervisor._session
    assert session is not None
    one = session.topology()
    session._topology = replace(one, nodes=(*one.nodes, NumaNode(len(one.nodes), 1024)))
    eventually(lambda: host.guest("numa").memory_by_node)
    (found,) = (host.guest("numa").memory_by_node or {}).values()
    assert 2 * 1024 < found < 512 * 1024
