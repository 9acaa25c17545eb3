"""The same scenario on real guests: started, loaded, watched, served by the production loop.

What the machine can't hold is refused before anything is started. Loads become the lab's own: a
loop counts and sleeps, with the count that gives the wanted duty measured first, and is regular
where the simulator draws; noise becomes a loop with short pauses. What only a simulation knows
(memory's speed, wants beyond what is there) stays unknown, and metrics that need it have no value.
"""

import contextlib
import math
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from virtbalance.bench.contenders import Thinking
from virtbalance.bench.lab_look import Looker
from virtbalance.bench.lab_stage import (
    QUICK_PAUSE_US,
    SENSE_S,
    Stage,
    check_fits,
    door,
    place,
    prepared,
)
from virtbalance.bench.played import Played, Progress
from virtbalance.bench.recording import HostFacts, Look, record
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
from virtbalance.model.guest import RoleName
from virtbalance.model.snapshot import Scope

if TYPE_CHECKING:
    from virtbalance.lab import CpuLoad, Guest

_MIB = 1024
_DRAIN_S = 10.0


def play_on_lab(
    scenario: Scenario,
    settings: CpuSettings | MemorySettings,
    role: Role,
    thinking: Thinking,
    progress: Progress,
) -> Played:
    """Let a role serve real guests for the scenario's duration. Raises ``ConfigError``."""
    with staged(scenario) as stage:
        return play_on(stage, scenario, settings, role, thinking, progress)


@contextlib.contextmanager
def staged(scenario: Scenario) -> Iterator[Stage]:
    """Have a scenario's guests there, ready to be played with. Raises ``ConfigError``."""
    check_fits(scenario)
    from virtbalance.lab import Lab, LabError

    try:
        with Lab.embedded(say=lambda _: None) as lab:
            yield prepared(scenario, lab)
    except LabError as error:
        raise ConfigError(f"{scenario.name} on the lab: {error}") from error


def play_on(
    stage: Stage,
    scenario: Scenario,
    settings: CpuSettings | MemorySettings,
    role: Role,
    thinking: Thinking,
    progress: Progress,
) -> Played:
    """Put everybody in place and let a role serve them for the scenario's duration."""
    with (
        tempfile.TemporaryDirectory() as directory,
        door(stage.uri) as served,
        door(stage.uri) as watched,
    ):
        if scenario.role is RoleName.CPU:
            place(watched, scenario, stage.guests)
        began_ns = time.monotonic_ns()
        notes = NoteTaker(began_ns)
        observer = DetachedObserver(notes)
        loop = Loop(
            served,
            role,
            loop_settings(settings, None),
            clock=SystemClock(),
            decider=UnlimitedDecider(),
            journal=Journal(Path(directory), served.boot_id),
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
        if not isinstance(table.load, PhasesLoad):
            self._due.append((0.0, _loaded(guest, _lab_load(table.load, stage))))
            return
        for phase in table.load.phases:
            self._due.append((at_s, _loaded(guest, _quick_loop(phase.duty, stage))))
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


def _lab_load(load: Load, stage: Stage) -> "CpuLoad":
    from virtbalance.lab import Burst, CountAndSleep, Hog, Off

    match load:
        case HogLoad() | LoopLoad(duty=1.0):
            return Hog()
        case BurstsLoad():
            return Burst(load.on_s * 1e3, load.off_s * 1e3)
        case LoopLoad(duty=duty, work_ms=work_ms) if duty > 0:
            count = max(1, round(stage.turns_per_s * work_ms / 1e3))
            return CountAndSleep(count, round(work_ms * 1e3 * (1 - duty) / duty))
        case NoiseLoad():
            return _quick_loop(load.mean, stage)
    return Off()


def _quick_loop(duty: float, stage: Stage) -> "CpuLoad":
    from virtbalance.lab import CountAndSleep, Hog, Off

    if not 0 < duty < 1:
        return Hog() if duty else Off()
    return CountAndSleep(stage.loops[duty].count, QUICK_PAUSE_US)


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
    scope = Scope.CPU  # asking guests for their memory costs them time
    if scenario.role is RoleName.MEMORY:
        scope |= Scope.MEMORY
    looks = []
    at_s = 0.0
    with Looker(scenario, stage, began_ns) as looker:
        while at_s <= scenario.duration_s:
            story.go_on()
            looks.append(looker.look(hypervisor.sample(scope, SENSE_S)))
            progress(at_s)
            at_s += scenario.record_s
            while (now_s := (time.monotonic_ns() - began_ns) / 1e9) < at_s:
                story.go_on()
                time.sleep(min(0.05, at_s - now_s))
    return looks
