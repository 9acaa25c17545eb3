"""Programs as processes, on a libvirtd of our own: crashes, restarts, guests that come and go.

Three guests on pCPU 0, each busy, under a libvirtd in a mount namespace of its own.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from tests.real.program_process import BIN, Document, Program, longest_gap_s, pins
from virtbalance.lab import Guest, GuestSpec, Hog, Lab, Off
from virtbalance.lab.private_libvirtd import PrivateLibvirtd

pytestmark = pytest.mark.lab_full

PERIOD = "0.5"
SIZE_KIB = 256 * 1024
ON_PCPU_0 = (frozenset({0}),)


@pytest.fixture(scope="module")
def started(opened: Lab) -> list[Guest]:
    return opened.start(
        [
            GuestSpec(name=f"p{i}", maximum_mib=512, current_mib=256, pins=ON_PCPU_0)
            for i in range(3)
        ]
    )


@pytest.fixture
def guests(started: list[Guest], daemon: PrivateLibvirtd) -> Iterator[list[Guest]]:
    """The three guests busy on pCPU 0, as they were at their start."""
    for guest in started:
        guest.domain.pinVcpu(0, (True, *(False,) * (host_cpus() - 1)))
        guest.load_cpu(0, Hog())
    yield started
    for guest in started:
        guest.load_cpu(0, Off())


def host_cpus() -> int:
    return os.cpu_count() or 1


def affinity(guest: Guest) -> list[int]:
    (mask,) = guest.domain.vcpuPinInfo()
    return [cpu for cpu, allowed in enumerate(mask) if allowed]


def await_size(guests: list[Guest]) -> None:
    end_s = time.monotonic() + 30.0
    while any(guest.domain.info()[2] != SIZE_KIB for guest in guests):
        assert time.monotonic() < end_s, "the balloons do not come to rest"
        time.sleep(0.2)


def balloon_xml(guest: Guest) -> Any:
    return ET.fromstring(guest.domain.XMLDesc()).find("devices/memballoon/stats")


def scheduler(tmp_path: Path, daemon: PrivateLibvirtd, *words: str) -> Program:
    return Program(tmp_path, "vcpu_scheduler", PERIOD, "-c", daemon.uri, *words)


def qemu_pid(guest: Guest, daemon: PrivateLibvirtd) -> int:
    folder = Path(daemon.uri.partition("socket=")[2]).parent
    return int((folder / "qemu" / f"{guest.name}.pid").read_text())


def spread(program: Program) -> Document:
    """Wait until it has pinned something."""
    return program.until(pins)


def test_originals_are_put_back_at_the_end(
    tmp_path: Path, daemon: PrivateLibvirtd, guests: list[Guest]
) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        with scheduler(tmp_path, daemon) as program:
            spread(program)
            assert any(affinity(guest) != [0] for guest in guests)
            assert program.end(number) == 0
        assert [affinity(guest) for guest in guests] == [[0]] * 3
        assert "restored" in program.notices()


@pytest.mark.parametrize("words", [("cpu", PERIOD), ("run", "--cpu-period", PERIOD)])
def test_after_kill_9_the_next_start_puts_originals_back_first(
    tmp_path: Path, daemon: PrivateLibvirtd, guests: list[Guest], words: tuple[str, ...]
) -> None:
    with Program(tmp_path, "virt-balance", *words, "-c", daemon.uri) as program:
        spread(program)
        program.kill()
    assert any(affinity(guest) != [0] for guest in guests)
    with scheduler(tmp_path, daemon, "--policy", "hold") as program:
        (tick,) = program.more_ticks(1)
        assert [vcpu["cpus"] for vcpu in tick["vcpus"]] == [[0]] * 3
        assert program.end() == 0


def test_a_second_instance_is_told_of_the_first(
    tmp_path: Path, daemon: PrivateLibvirtd, guests: list[Guest]
) -> None:
    with scheduler(tmp_path, daemon) as program:
        program.more_ticks(1)
        environment = {
            **os.environ,
            "VIRT_BALANCE_STATE_DIR": str(tmp_path / "state"),
            "VIRT_BALANCE_RUN_DIR": str(tmp_path / "run"),
        }
        second = subprocess.run(
            [BIN / "vcpu_scheduler", PERIOD, "-c", daemon.uri],
            env=environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert second.returncode == 1
        assert second.stderr.startswith("vcpu_scheduler: the cpu program is already running")
        status = subprocess.run(
            [BIN / "virt-balance", "status"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert status.returncode == 0
        assert "running (process" in status.stdout
        assert program.end() == 0


def test_libvirtd_killed_and_restarted(
    tmp_path: Path, daemon: PrivateLibvirtd, guests: list[Guest]
) -> None:
    with scheduler(tmp_path, daemon) as program:
        spread(program)
        daemon.kill()
        program.until(lambda d: d.get("notice", {}).get("kind") == "connection-lost")
        ticks_then = len(program.ticks())
        time.sleep(2.0)
        assert len(program.ticks()) == ticks_then
        daemon.start()
        program.until(lambda d: d.get("notice", {}).get("kind") == "reconnected", 60.0)
        program.more_ticks(3)
        assert program.end() == 0
    assert [affinity(guest) for guest in guests] == [[0]] * 3


def test_guests_destroyed_paused_and_replaced_within_a_period(
    tmp_path: Path, daemon: PrivateLibvirtd, guests: list[Guest], opened: Lab
) -> None:
    with scheduler(tmp_path, daemon) as program:
        spread(program)
        guests[0].domain.suspend()
        program.more_ticks(2)
        guests[0].domain.resume()
        spare = GuestSpec(name="spare", maximum_mib=256, pins=ON_PCPU_0)
        (first,) = opened.start([spare])
        program.more_ticks(2)
        first.stop()
        (second,) = opened.start([spare])
        program.more_ticks(2)
        second.domain.destroy()
        program.more_ticks(2)
        ticks = program.ticks()
        assert program.end() == 0
    names = {event["kind"] for tick in ticks for event in tick["events"]}
    assert names <= {
        "guest-started",
        "guest-stopped",
        "guest-paused",
        "guest-resumed",
        "overrun",
    }
    assert [affinity(guest) for guest in guests] == [[0]] * 3


def test_a_stopped_qemu_delays_nobody(
    tmp_path: Path, daemon: PrivateLibvirtd, guests: list[Guest]
) -> None:
    pid = qemu_pid(guests[1], daemon)
    words = ("virt-balance", "run", "--cpu-period", PERIOD, "--memory-period", "1")
    with Program(tmp_path, *words, "-c", daemon.uri) as program:
        program.more_ticks(6)
        os.kill(pid, signal.SIGSTOP)
        try:
            during = program.more_ticks(18, 60.0)
        finally:
            os.kill(pid, signal.SIGCONT)
        program.more_ticks(6)
        assert program.end() == 0
    assert longest_gap_s([t for t in during if t["role"] == "cpu"]) < 3.0
    assert longest_gap_s([t for t in during if t["role"] == "memory"]) < 4.0
    last = [tick for tick in during if tick["role"] == "memory"][-1]
    (stopped,) = [g for g in last["guests"] if g["name"] == guests[1].name]
    assert not [a for a in last["actions"] if a["name"] == stopped["name"]]
    assert [affinity(guest) for guest in guests] == [[0]] * 3


def test_a_qemu_stopped_while_it_is_being_changed(
    tmp_path: Path, daemon: PrivateLibvirtd, guests: list[Guest]
) -> None:
    """The guest is stopped before the first tick: the call for it gets no answer."""
    pid = qemu_pid(guests[1], daemon)
    policy = tmp_path / "resize.py"
    policy.write_text(
        "from virtbalance.model.plan import DesiredSize, MemoryPlan, Reason\n"
        "class Grow:\n"
        "    name = 'grow'\n"
        "    def decide(self, state, estimate, config, now_s):\n"
        "        why = Reason('grow', 'to its maximum')\n"
        "        sizes = [DesiredSize(g.uuid, g.maximum_kib, why) for g in estimate.guests]\n"
        "        return MemoryPlan(tuple(sizes)), state\n"
    )
    words = ("memory_coordinator", "1", "--policy", f"{policy}:Grow", "--on-exit", "restore")
    with Program(tmp_path, *words, "-c", daemon.uri) as program:
        os.kill(pid, signal.SIGSTOP)
        try:
            ticks = program.more_ticks(8, 60.0)
        finally:
            os.kill(pid, signal.SIGCONT)
        after = program.more_ticks(4, 60.0)
        program.end()
    others = {guests[0].name, guests[2].name}
    grown = {a["name"] for tick in ticks for a in tick["actions"] if a["status"] == "done"}
    assert others <= grown
    assert longest_gap_s(ticks) < 4.0
    assert after[-1]["tick"] > ticks[-1]["tick"]


def test_a_dry_run_changes_nothing_at_all(
    tmp_path: Path, daemon: PrivateLibvirtd, guests: list[Guest]
) -> None:
    for guest in guests:
        guest.domain.setMemory(SIZE_KIB)
        guest.domain.setMemoryStatsPeriod(0)
    await_size(guests)
    before = [(affinity(g), g.domain.info(), balloon_xml(g)) for g in guests]
    with Program(tmp_path, "virt-balance", "run", "--dry-run", "-c", daemon.uri) as program:
        program.until(pins)
        program.until(lambda d: d.get("role") == "memory" and d.get("actions"))
        program.more_ticks(4)
        assert program.end() == 0
    for tick in program.ticks():
        assert {action["status"] for action in tick["actions"]} <= {"planned"}
    for guest, (cpus, info, stats) in zip(guests, before, strict=True):
        assert affinity(guest) == cpus
        assert guest.domain.info()[:4] == info[:4]
        assert stats is None
        assert balloon_xml(guest) is None
    for guest in guests:
        guest.domain.setMemoryStatsPeriod(1)


def test_a_read_only_connection_is_refused_unless_dry_run(
    tmp_path: Path, daemon: PrivateLibvirtd, guests: list[Guest]
) -> None:
    uri = f"{daemon.uri}-ro"
    done = subprocess.run(
        [BIN / "vcpu_scheduler", "1", "-c", uri, "--once"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "read" in done.stderr
    assert "--dry-run" in done.stderr
    with Program(tmp_path, "vcpu_scheduler", PERIOD, "-c", uri, "--dry-run") as program:
        program.more_ticks(2)
        assert program.end() == 0
