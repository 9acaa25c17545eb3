"""QEMU stopped with SIGSTOP: it costs itself, never the others and never the time."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.hypervisor.bare_guests import BareGuests, embedded_guests
from virtbalance.hypervisor import LibvirtHypervisor, connect
from virtbalance.model.guest import VcpuKey
from virtbalance.model.plan import Action, Pin, Reason, Resize
from virtbalance.model.snapshot import GuestSample, Scope, Snapshot
from virtbalance.model.tick import Outcome, Status

pytestmark = [pytest.mark.libvirt, pytest.mark.lab]

WHY = Reason("test", "test")
BOTH = Scope.CPU | Scope.MEMORY
DEADLINE_S = 0.5
MARGIN_S = 0.25


class Host:
    """Three guests of which ``hung`` can be stopped dead."""

    def __init__(self, guests: BareGuests, hypervisor: LibvirtHypervisor) -> None:
        self.guests = guests
        self.hypervisor = hypervisor
        self.uuid = {
            name: str(guests.start(name, memory_mib=64).UUIDString())
            for name in ("hung", "well", "fine")
        }
        self.eventually(lambda: len(self.sample().guests) == 3)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.guests.pid("hung"), number)

    def sample(self, scope: Scope = BOTH) -> Snapshot:
        return self.hypervisor.sample(scope, DEADLINE_S)

    def guest(self, name: str, scope: Scope = BOTH) -> GuestSample:
        uuid = self.uuid[name]
        return next(guest for guest in self.sample(scope).guests if guest.uuid == uuid)

    def is_late(self, name: str) -> bool:
        memory = self.guest(name).memory
        assert memory is not None
        return memory.late

    def resize(self, name: str, kib: int) -> Resize:
        return Resize(self.uuid[name], kib, WHY)

    def apply(self, *actions: Action) -> tuple[Outcome, ...]:
        began_s = time.monotonic()
        outcomes = self.hypervisor.apply(actions, DEADLINE_S)
        assert time.monotonic() - began_s < DEADLINE_S + MARGIN_S
        return outcomes

    def statuses(self, *actions: Action) -> list[Status]:
        return [outcome.status for outcome in self.apply(*actions)]

    def eventually(self, holds: object, limit_s: float = 20.0) -> None:
        assert callable(holds)
        end_s = time.monotonic() + limit_s
        while not holds():
            assert time.monotonic() < end_s
            time.sleep(0.05)


@pytest.fixture
def host() -> Iterator[Host]:
    guests = embedded_guests()
    hypervisor = connect(guests.uri)
    host = Host(guests, hypervisor)
    yield host
    with contextlib.suppress(FileNotFoundError):  # it has been killed, and the test has failed
        host.signal(signal.SIGCONT)
    hypervisor.close()
    guests.close()


def test_a_hung_guest_is_late_with_its_last_values_and_delays_nobody(host: Host) -> None:
    before = host.guest("hung").memory
    assert before is not None
    host.signal(signal.SIGSTOP)
    for expected_s in (DEADLINE_S, 0.0, 0.0):
        began_s = time.monotonic()
        snapshot = host.sample()
        assert time.monotonic() - began_s < expected_s + MARGIN_S
        by_uuid = {guest.uuid: guest for guest in snapshot.guests}
        memory = by_uuid[host.uuid["hung"]].memory
        assert memory is not None
        assert memory.late
        assert memory.actual_kib == before.actual_kib
        assert len(by_uuid[host.uuid["hung"]].vcpus) == 2, "the kernel still tells its CPU time"
        for name in ("well", "fine"):
            memory = by_uuid[host.uuid[name]].memory
            assert memory is not None
            assert not memory.late
    host.signal(signal.SIGCONT)
    host.eventually(lambda: not host.is_late("hung"))


@pytest.mark.lab_full
def test_a_hung_guest_found_by_sensing_is_not_changed(host: Host) -> None:
    host.signal(signal.SIGSTOP)
    assert host.is_late("hung")
    statuses = host.statuses(host.resize("hung", 40_000), host.resize("well", 50_000))
    assert statuses == [Status.BUSY, Status.DONE]


def test_a_guest_that_hangs_while_it_is_changed_is_late_then_busy(host: Host) -> None:
    host.signal(signal.SIGSTOP)
    statuses = host.statuses(host.resize("hung", 40_000), host.resize("well", 50_000))
    assert statuses == [Status.LATE, Status.DONE]
    statuses = host.statuses(host.resize("hung", 41_000), host.resize("well", 51_000))
    assert statuses == [Status.BUSY, Status.DONE]
    assert [guest.name for guest in host.sample(Scope.CPU).guests if guest.vcpus]
    host.signal(signal.SIGCONT)
    host.eventually(lambda: host.statuses(host.resize("hung", 42_000)) == [Status.DONE])


@pytest.mark.lab_full
def test_pinning_needs_no_answer_from_qemu(host: Host) -> None:
    host.signal(signal.SIGSTOP)
    action = Pin(VcpuKey(host.uuid["hung"], 0), frozenset({0}), WHY)
    assert host.statuses(action) == [Status.DONE]


@pytest.mark.lab_full
def test_a_hung_guest_that_is_killed_vanishes(host: Host) -> None:
    host.signal(signal.SIGSTOP)
    assert host.is_late("hung")
    uuid = host.uuid["hung"]
    host.signal(signal.SIGKILL)
    host.eventually(lambda: uuid not in {guest.uuid for guest in host.sample().guests})
    assert len(host.sample().guests) == 2
    host.eventually(lambda: host.statuses(host.resize("hung", 40_000)) == [Status.GONE])
    host.guests.start("hung")


PROGRAM = """
import os, signal, sys, time
from tests.hypervisor.bare_guests import embedded_guests
from virtbalance.hypervisor import connect
from virtbalance.model.plan import Reason, Resize
from virtbalance.model.snapshot import Scope

guests = embedded_guests()
uuid = guests.start("hung").UUIDString()
hypervisor = connect(guests.uri)
os.kill(guests.pid("hung"), signal.SIGSTOP)
action = Resize(uuid, 20000, Reason("test", "test"))
print(hypervisor.apply([action], 0.3)[0].status, flush=True)
print(hypervisor.sample(Scope.MEMORY, 0.3).guests[0].memory.late, flush=True)
if "close" in sys.argv:
    hypervisor.close()
print(time.monotonic(), flush=True)
"""


@pytest.mark.lab_full
@pytest.mark.parametrize("words", [(), ("close",)])
def test_a_hung_guest_does_not_hold_up_the_end_of_the_program(words: tuple[str, ...]) -> None:
    program = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    ended_s = time.monotonic()
    status, late, at_end_s = program.stdout.split()[-3:]
    assert (status, late) == ("late", "True")
    assert ended_s - float(at_end_s) < 10, "the lab ends its guest meanwhile"
    assert program.returncode == 0, program.stderr
