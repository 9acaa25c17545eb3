"""libvirtd killed, restarted, hanging, and full of guests that hang."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.hypervisor.bare_guests import BareGuests
from tests.hypervisor.daemons import far_uri, private_libvirtd
from virtbalance.hypervisor import LibvirtHypervisor, connect
from virtbalance.lab.private_libvirtd import PrivateLibvirtd
from virtbalance.model.errors import HypervisorLostError
from virtbalance.model.guest import VcpuKey
from virtbalance.model.plan import Pin, Reason, Resize
from virtbalance.model.snapshot import Scope
from virtbalance.model.tick import Status

pytestmark = [pytest.mark.libvirt, pytest.mark.lab_full]

BOTH = Scope.CPU | Scope.MEMORY
WHY = Reason("test", "test")
Running = tuple[PrivateLibvirtd, BareGuests]


@pytest.fixture
def running() -> Iterator[Running]:
    with private_libvirtd() as (daemon, guests):
        yield daemon, guests


def eventually(holds: Callable[[], object], limit_s: float = 20.0) -> None:
    end_s = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.05)


def is_lost(hypervisor: LibvirtHypervisor, scope: Scope = Scope.CPU) -> bool:
    began_s = time.monotonic()
    try:
        hypervisor.sample(scope, 0.5)
    except HypervisorLostError:
        return True
    finally:
        assert time.monotonic() - began_s < 0.75
    return False


@pytest.mark.parametrize("far", [False, True])
def test_a_killed_libvirtd_is_noticed_and_found_again(
    running: Running, tmp_path: Path, far: bool
) -> None:
    daemon, guests = running
    guests.start("survivor")
    hypervisor = connect(far_uri(daemon, tmp_path) if far else daemon.uri)
    before = hypervisor.sample(BOTH, 5.0).guests[0]
    daemon.kill()
    eventually(lambda: is_lost(hypervisor), 2.0)
    action = Pin(VcpuKey(before.uuid, 0), frozenset({0}), WHY)
    (outcome,) = hypervisor.apply([action], 1.0)
    assert (outcome.status, outcome.text) == (Status.REFUSED, "the connection is lost")
    with pytest.raises(HypervisorLostError):
        hypervisor.reconnect()
    daemon.start()
    hypervisor.reconnect()
    after = hypervisor.sample(BOTH, 5.0).guests[0]
    assert (after.uuid, after.incarnation) == (before.uuid, before.incarnation)
    assert hypervisor.apply([action], 1.0)[0].status is Status.DONE
    assert hypervisor.events() == (), "its guests lived on"
    hypervisor.close()


def test_who_came_and_went_while_the_connection_was_lost_is_told(running: Running) -> None:
    daemon, guests = running
    guests.start("goes")
    hypervisor = connect(daemon.uri)
    pid = guests.pid("goes")
    daemon.kill()
    eventually(lambda: is_lost(hypervisor), 2.0)
    os.kill(pid, signal.SIGKILL)
    daemon.start()
    BareGuests(daemon.uri, Path("/nowhere")).start("comes")
    hypervisor.reconnect()
    assert [event.text for event in hypervisor.events()] == ["new: comes; gone: goes"]
    hypervisor.close()


def test_a_libvirtd_that_hangs_never_takes_more_than_the_time_given(running: Running) -> None:
    daemon, guests = running
    uuid = str(guests.start("one").UUIDString())
    hypervisor = connect(daemon.uri, timeout_s=3.0)
    hypervisor.sample(BOTH, 5.0)
    os.kill(daemon.pid, signal.SIGSTOP)
    began_s = time.monotonic()
    (outcome,) = hypervisor.apply([Resize(uuid, 20_000, WHY)], 0.3)
    assert outcome.status is Status.LATE
    assert time.monotonic() - began_s < 0.6
    eventually(lambda: is_lost(hypervisor, BOTH), 20.0)
    for wait in (hypervisor.reconnect, hypervisor.close):
        began_s = time.monotonic()
        if wait == hypervisor.reconnect:
            with pytest.raises(HypervisorLostError):
                wait()
        assert time.monotonic() - began_s < 5.0
    os.kill(daemon.pid, signal.SIGCONT)
    eventually(lambda: not raises_lost(hypervisor.reconnect))
    assert not is_lost(hypervisor, BOTH)
    hypervisor.close()


def raises_lost(call: Callable[[], object]) -> bool:
    try:
        call()
    except HypervisorLostError:
        return True
    return False


def test_more_hung_guests_than_libvirtd_serves_calls_at_once(running: Running) -> None:
    daemon, guests = running
    hung = {str(guests.start(f"hung{n}").UUIDString()) for n in range(7)}
    well = str(guests.start("well").UUIDString())
    hypervisor = connect(daemon.uri)
    assert len(hypervisor.sample(BOTH, 10.0).guests) == 8
    pids = [guests.pid(f"hung{n}") for n in range(7)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    ends_s = time.monotonic() + 25.0  # longer than any keepalive
    while time.monotonic() < ends_s:
        late = {
            guest.uuid: guest.memory.late
            for guest in hypervisor.sample(BOTH, 0.5).guests
            if guest.memory is not None
        }
        time.sleep(0.2)
    assert late == dict.fromkeys(hung, True) | {well: False}
    assert hypervisor.apply([Resize(well, 20_000, WHY)], 1.0)[0].status is Status.DONE
    guests.connection.lookupByName("well").suspend()
    eventually(lambda: [e for e in hypervisor.events() if e.kind == "guest-paused"], 3.0)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)

    def is_nobody_late() -> bool:
        samples = hypervisor.sample(BOTH, 2.0).guests
        return not any(guest.memory is None or guest.memory.late for guest in samples)

    eventually(is_nobody_late)
    hypervisor.close()


def test_reconnecting_often_leaves_nothing_open(running: Running) -> None:
    daemon, guests = running
    guests.start("one")
    hypervisor = connect(daemon.uri)

    def descriptors() -> int:
        hypervisor.sample(BOTH, 5.0)
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  iterdir keeps one open itself

    before = descriptors()
    for _ in range(3):
        daemon.kill()
        eventually(lambda: is_lost(hypervisor), 2.0)
        daemon.start()
        hypervisor.reconnect()
    eventually(lambda: descriptors() <= before, 5.0)
    hypervisor.close()
