"""The same scenario on real guests: started, loaded, watched, served by the production loop.

What the machine can't hold is refused before anything is started. Loads become the lab's own: a
closed loop counts and sleeps, with the count that gives the wanted duty measured first. What only a
simulation knows (speed of full speed, wants beyond what is there) stays unknown, and metrics that
need it have no value.
"""

import math
import os
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from virtbalance.bench.contenders import Thinking
from virtbalance.bench.lab_stage import SENSE_S, Stage, check_fits, door, prepared
from virtbalance.bench.played import Played, Progress
from virtbalance.bench.recording import HostFacts, Look, MemoryLook, VcpuLook, record
from virtbalance.bench.schema import (
    BurstsLoad,
    EventTable,
    GuestTable,
    HogLoad,
    Load,
    LoopLoad,
    NoiseLoad,
    PhasesLoad,
    ProgramTable,
    Scenario,
)
from virtbalance.bench.watching import NoteTaker
from virtbalance.control.clock import SystemClock
from virtbalance.control.config import ConfigError
from virtbalance.control.deadline import UnlimitedDecider
from virtbalance.control.hypervisor import Hypervisor
from virtbalance.control.journal import Journal
from virtbalance.control.loop import Loop
from virtbalance.control.observers import DetachedObserver
from virtbalance.control.role import Role
from virtbalance.control.settings import CpuSettings, MemorySettings, loop_settings
from virtbalance.model.guest import RoleName, VcpuKey
from virtbalance.model.snapshot import GuestSample, Scope, Snapshot

if TYPE_CHECKING:
    from virtbalance.lab import CpuLoad, Guest

_MIB = 1024
_DRAIN_S = 10.0
_ENDS = {"limit": "stopped", "killed": "died early"}


def play_on_lab(
    scenario: Scenario,
    settings: CpuSettings | MemorySettings,
    role: Role,
    thinking: Thinking,
    progress: Progress,
) -> Played:
    """Let a role serve real guests for the scenario's duration. Raises ``ConfigError``."""
    check_fits(scenario)
    from virtbalance.lab import Lab, LabError

    try:
        with Lab.embedded(say=lambda _: None) as lab, tempfile.TemporaryDirectory() as directory:
            stage = prepared(scenario, lab)
            return _served(scenario, settings, role, thinking, stage, Path(directory), progress)
    except LabError as error:
        raise ConfigError(f"{scenario.name} on the lab: {error}") from error


# Serving and watching


def _served(
    scenario: Scenario,
    settings: CpuSettings | MemorySettings,
    role: Role,
    thinking: Thinking,
    stage: Stage,
    directory: Path,
    progress: Progress,
) -> Played:
    with door(stage.uri) as served, door(stage.uri) as watched:
        began_ns = time.monotonic_ns()
        notes = NoteTaker(began_ns)
        observer = DetachedObserver(notes)
        loop = Loop(
            served,
            role,
            loop_settings(settings, None),
            clock=SystemClock(),
            decider=UnlimitedDecider(),
            journal=Journal(directory, served.boot_id),
            observers=[observer],
        )
        runner = threading.Thread(target=loop.run, name="loop", daemon=True)
        story = _Story(scenario, stage, began_ns)
        runner.start()
        try:
            looks = _watch(scenario, stage, watched, story, began_ns, progress)
        finally:
            loop.stop()
            runner.join()
        observer.finish(_DRAIN_S)
        facts = _facts(scenario, watched)
    return Played(record(looks, notes.notes, facts), thinking, notes.first_failure)


def _facts(scenario: Scenario, hypervisor: Hypervisor) -> HostFacts:
    memory = hypervisor.sample(Scope.MEMORY, SENSE_S).memory
    return HostFacts(
        hypervisor.topology(),
        memory.total_kib if memory else 0,
        scenario.period_s,
        minimum_kib={
            table.name: round(table.memory.minimum_mib * _MIB)
            for table in scenario.guests
            if table.memory and table.memory.minimum_mib
        },
    )


class _Story:
    """What guests are told to do, each at its time."""

    def __init__(self, scenario: Scenario, stage: Stage, began_ns: int) -> None:
        self._began_ns = began_ns
        self._due: list[tuple[float, Callable[[], object]]] = []
        for table in scenario.guests:
            self._tell_load(table, stage)
            if table.memory and table.memory.program:
                program, guest = table.memory.program, stage.guests[table.name]
                self._due.append((program.start_s, _consume(guest, program)))
        for event in scenario.events:
            self._tell_event(event, scenario, stage)
        self._due.sort(key=lambda due: due[0])

    def go_on(self) -> None:
        """Do what is due."""
        while self._due and self._due[0][0] <= (time.monotonic_ns() - self._began_ns) / 1e9:
            self._due.pop(0)[1]()

    def _tell_load(self, table: GuestTable, stage: Stage) -> None:
        guest, at_s = stage.guests[table.name], 0.0
        phases = table.load.phases if isinstance(table.load, PhasesLoad) else None
        if phases is None:
            self._due.append((0.0, _loaded(guest, _lab_load(table.load, stage.counts))))
            return
        for phase in phases:
            load = _lab_load(LoopLoad(phase.duty), stage.counts)
            self._due.append((at_s, _loaded(guest, load)))
            at_s += phase.seconds

    def _tell_event(self, event: EventTable, scenario: Scenario, stage: Stage) -> None:
        last_s = min(scenario.duration_s, event.until_s or math.inf)
        for name, guest in stage.guests.items():
            if not fnmatchcase(name, event.guest or ""):
                continue
            at_s = event.at_s
            while at_s <= last_s:
                self._due.append((at_s, _happening(guest, event)))
                if event.every_s is None:
                    break
                at_s += event.every_s


def _consume(guest: "Guest", program: ProgramTable) -> Callable[[], object]:
    return lambda: guest.allocate(program.stop_mib, program.rate_mib_s, then_free=True)


def _loaded(guest: "Guest", load: "CpuLoad") -> Callable[[], object]:
    return lambda: guest.load_cpu(None, load)


def _lab_load(load: Load, counts: Mapping[float, int]) -> "CpuLoad":
    from virtbalance.lab import Burst, CountAndSleep, Hog, Off

    match load:
        case HogLoad():
            return Hog()
        case BurstsLoad():
            return Burst(load.on_s * 1e3, load.off_s * 1e3)
        case LoopLoad(duty=duty) | NoiseLoad(mean=duty) if duty > 0:
            return CountAndSleep(counts[duty])
    return Off()


def _happening(guest: "Guest", event: EventTable) -> Callable[[], object]:
    def happen() -> None:
        domain = guest.domain
        if event.kind == "pin":
            cpus = os.cpu_count() or 1
            domain.pinVcpu(event.vcpu, tuple(cpu in event.cpus for cpu in range(cpus)))
        elif event.kind == "resize":
            assert event.mib is not None
            domain.setMemory(round(event.mib * _MIB))
        elif event.kind == "pause":
            domain.suspend()
        else:
            domain.resume()

    return happen


def _watch(
    scenario: Scenario,
    stage: Stage,
    hypervisor: Hypervisor,
    story: _Story,
    began_ns: int,
    progress: Progress,
) -> list[Look]:
    looks = []
    at_s = 0.0
    while at_s <= scenario.duration_s:
        story.go_on()
        snapshot = hypervisor.sample(Scope.CPU | Scope.MEMORY, SENSE_S)
        looks.append(_look(scenario, stage, snapshot, began_ns))
        progress(at_s)
        at_s += scenario.record_s
        while (now_s := (time.monotonic_ns() - began_ns) / 1e9) < at_s:
            story.go_on()
            time.sleep(min(0.05, at_s - now_s))
    return looks


def _look(scenario: Scenario, stage: Stage, snapshot: Snapshot, began_ns: int) -> Look:
    at_s = (snapshot.taken_ns - began_ns) / 1e9
    tables = {table.name: table for table in scenario.guests}
    vcpus = {
        VcpuKey(guest.uuid, vcpu.index): VcpuLook(
            vcpu.run_ns / 1e9,
            (vcpu.wait_ns or 0) / 1e9,
            vcpu.run_ns / 1e9,
            _demand(tables[guest.name].load, at_s),
            vcpu.affinity or frozenset(),
        )
        for guest in snapshot.guests
        if guest.name in tables
        for vcpu in guest.vcpus
    }
    memory = {}
    if scenario.role is RoleName.MEMORY:
        memory = {
            guest.uuid: look
            for guest in snapshot.guests
            if guest.name in tables
            and (look := _memory(guest, stage, tables[guest.name])) is not None
        }
    host = snapshot.memory
    rss_kib = sum((g.memory.rss_kib or 0) for g in snapshot.guests if g.memory)
    return Look(
        at_s=at_s,
        vcpus=vcpus,
        busy_s={pcpu.id: pcpu.busy_ns / 1e9 for pcpu in snapshot.pcpus},
        memory=memory,
        weights={g.uuid: g.settings.weight for g in snapshot.guests if g.name in tables},
        names={g.uuid: g.name for g in snapshot.guests},
        available_kib=host.available_kib if host else 0.0,
        other_kib=host.total_kib - host.available_kib - rss_kib if host else 0.0,
    )


def _demand(load: Load, at_s: float) -> float:
    """Return what a load would use of a free pCPU at this time."""
    match load:
        case HogLoad():
            return 1.0
        case LoopLoad():
            return load.duty
        case NoiseLoad():
            return load.mean
        case BurstsLoad():
            return load.on_s / (load.on_s + load.off_s)
        case PhasesLoad():
            return _phase_duty(load, at_s)
    return 0.0


def _phase_duty(load: PhasesLoad, at_s: float) -> float:
    end_s = 0.0
    for phase in load.phases:
        end_s += phase.seconds
        if at_s <= end_s:
            return phase.duty
    return load.phases[-1].duty


def _memory(guest: GuestSample, stage: Stage, table: GuestTable) -> MemoryLook | None:
    sample = guest.memory
    if sample is None or sample.available_kib is None or sample.usable_kib is None:
        return None
    used_kib = max(0, sample.available_kib - sample.usable_kib)
    program = None
    kills = 0
    if table.memory and table.memory.program:
        report = stage.guests[table.name].report().memory
        kills = report.kills
        program = _ENDS.get(report.outcome, "taking")
        if report.outcome == "floor":
            spare_kib = 0.01 * sample.maximum_kib
            open_kib = report.at_end.ballooned_kib <= spare_kib
            program = "limit reached" if open_kib else "died early"
    return MemoryLook(
        want_kib=used_kib,
        used_kib=used_kib,
        cache_kib=0.0,
        usable_kib=sample.usable_kib,
        actual_kib=sample.actual_kib,
        target_kib=sample.actual_kib,
        performance_s=math.nan,
        out_of_memory_s=0.0,
        kills=kills,
        program=program,
    )
