"""The fast path over several guests: all in one go, and what happens when some end."""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.hypervisor import fakes
from virtbalance.hypervisor.cpu_sampling import LocalVcpus
from virtbalance.hypervisor.processes import GuestProcess
from virtbalance.model.guest import VcpuKey

if TYPE_CHECKING:
    from virtbalance.hypervisor.guest_reading import Guest

PROC = Path("/proc")


class Host:
    """Guests of one vCPU each, played by sleeping processes."""

    def __init__(self) -> None:
        self.marked: list[str] = []
        self.vcpus = LocalVcpus(PROC, self.marked.append)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.guests: dict[str, Guest] = {}

    def start(self, uuid: str) -> None:
        process = self.processes[uuid] = subprocess.Popen(["sleep", "60"])
        self.guests[uuid] = replace(
            fakes.guest(uuid), process=GuestProcess(process.pid, 1), threads={0: process.pid}
        )

    def kill(self, uuid: str) -> None:
        self.processes[uuid].kill()
        self.processes[uuid].wait()

    def seen(self) -> list[str]:
        samples = self.vcpus.sample(self.guests.values())
        assert all(len(vcpus) == 1 for vcpus in samples.values())
        return sorted(samples)

    def thread_of(self, uuid: str) -> int | None:
        return self.vcpus.thread_id(VcpuKey(uuid, 0))


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host()
    yield host
    host.vcpus.close()
    for uuid in host.processes:
        host.kill(uuid)


def test_a_guest_that_ends_is_missing_at_once_and_the_others_are_not(host: Host) -> None:
    for uuid in ("a", "b", "c"):
        host.start(uuid)
    assert host.seen() == ["a", "b", "c"]
    host.kill("b")
    assert host.seen() == ["a", "c"]
    assert host.marked == ["b"]
    del host.guests["b"]
    assert host.seen() == ["a", "c"]
    assert host.marked == ["b"]


def test_nothing_is_read_from_descriptors_that_were_closed(host: Host) -> None:
    host.start("a")
    assert host.seen() == ["a"]
    folder = PROC / str(host.processes["a"].pid)
    assert fakes.open_below(folder) != []
    host.kill("a")
    assert host.seen() == []
    host.guests.clear()
    host.vcpus.keep_only(host.guests)
    assert host.seen() == []
    assert fakes.open_below(folder) == []


def test_guests_that_come_and_go_are_told_apart(host: Host) -> None:
    host.start("a")
    host.start("c")
    assert host.seen() == ["a", "c"]
    host.start("b")
    host.guests = dict(sorted(host.guests.items()))
    samples = host.vcpus.sample(host.guests.values())
    assert list(samples) == ["a", "b", "c"]
    assert [host.thread_of(uuid) for uuid in samples] == [host.processes[u].pid for u in samples]
    del host.guests["a"]
    host.vcpus.keep_only(host.guests)
    assert host.seen() == ["b", "c"]


def test_a_guest_whose_threads_are_in_doubt_is_left_to_libvirt(host: Host) -> None:
    host.start("a")
    host.start("b")
    host.seen()
    host.guests["a"] = replace(host.guests["a"], threads=None)
    assert host.seen() == ["b"]
    assert host.thread_of("a") is None
    assert host.marked == []


def test_a_vcpu_that_becomes_realtime_is_seen_to(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("virtbalance.hypervisor.cpu_sampling.WATCH_INTERVAL_S", 0.0)
    host.start("a")
    host.start("b")
    host.seen()
    fifo = host.processes["b"].pid
    monkeypatch.setattr(
        "os.sched_getscheduler", lambda pid: os.SCHED_FIFO if pid == fifo else os.SCHED_OTHER
    )
    host.seen()
    samples = host.vcpus.sample(host.guests.values())
    assert {uuid: vcpu.realtime for uuid, (vcpu,) in samples.items()} == {"a": False, "b": True}
    assert host.marked == []
