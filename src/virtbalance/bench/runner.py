"""One run: a scenario under a policy, through the production loop on a host; then measured."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from virtbalance.bench.building import build
from virtbalance.bench.contenders import ORACLE, Thinking, make_role
from virtbalance.bench.criteria import judge, passed
from virtbalance.bench.metrics import measure
from virtbalance.bench.played import Played, Progress
from virtbalance.bench.recording import HostFacts, Recording, record
from virtbalance.bench.results import Job, Result, manifest
from virtbalance.bench.schema import Scenario
from virtbalance.bench.series import series_of
from virtbalance.bench.watching import NoteTaker, Watcher
from virtbalance.control.config import validated
from virtbalance.control.deadline import UnlimitedDecider
from virtbalance.control.journal import MemoryJournal
from virtbalance.control.loop import Loop
from virtbalance.control.observers import AttachedObserver
from virtbalance.control.role import Role
from virtbalance.control.settings import CpuSettings, MemorySettings, loop_settings
from virtbalance.model.guest import RoleName
from virtbalance.simulation.host import SimulatedHost
from virtbalance.simulation.memory import QEMU_KIB
from virtbalance.simulation.want import MIB


@dataclass(frozen=True, slots=True)
class Done:
    """A finished run, with what the report draws."""

    result: Result
    series: Mapping[str, Any]


def run(job: Job, progress: Progress = lambda _: None) -> Done:
    """Run a job. Raises ``ConfigError``, ``PolicyError`` before it begins; nothing after."""
    began_s = time.perf_counter()
    scenario = job.scenario
    settings = program_settings(scenario)
    if job.policy == ORACLE and scenario.role is RoleName.CPU:
        from virtbalance.bench.oracle import static_placement

        policy = static_placement(hindsight(scenario, settings, job.seed))
        role, thinking = make_role(ORACLE, settings, policy)
    else:
        role, thinking = make_role(job.policy, settings)
    if job.on == "lab":
        from virtbalance.bench.lab_run import play_on_lab

        played = play_on_lab(scenario, settings, role, thinking, progress)
    else:
        played = play(scenario, settings, role, thinking, job.seed, progress)
    measured = played.recording.between(scenario.measure_from_s, None)
    judged = judge(scenario, played.recording)
    result = Result(
        scenario=scenario.name,
        on=job.on,
        policy=job.policy,
        seed=job.seed,
        passed=passed(judged),
        metrics=measure(measured, scenario.role),
        role=scenario.role,
        title=scenario.title,
        criteria=judged,
        error=played.first_failure,
        timing=_timing(scenario, thinking, time.perf_counter() - began_s),
        manifest=manifest(job),
    )
    return Done(result, series_of(played.recording, scenario))


def program_settings(scenario: Scenario) -> CpuSettings | MemorySettings:
    """Return the program's settings with the scenario's own. Raises ``ConfigError``."""
    kind: type[Any] = CpuSettings if scenario.role is RoleName.CPU else MemorySettings
    values = {**scenario.settings, "period_s": scenario.period_s}
    settings: CpuSettings | MemorySettings = validated(kind, values, f"{scenario.name}: settings")
    return settings


def hindsight(scenario: Scenario, settings: CpuSettings | MemorySettings, seed: int) -> Recording:
    """Return the scenario as it goes when nothing is done: demands are the same under all."""
    role, thinking = make_role("hold", settings)
    return play(scenario, settings, role, thinking, seed, lambda _: None).recording


def play(
    scenario: Scenario,
    settings: CpuSettings | MemorySettings,
    role: Role,
    thinking: Thinking,
    seed: int,
    progress: Progress,
) -> Played:
    """Let a role work on the scenario's host for its duration."""
    built = build(scenario, seed)
    host = built.host
    watcher = Watcher(host, scenario.record_s, progress)
    notes = NoteTaker(host.now_ns)
    loop = Loop(
        host,
        role,
        loop_settings(settings, None),
        clock=host.clock,
        decider=UnlimitedDecider(),
        journal=MemoryJournal(),
        observers=[AttachedObserver(notes)],
    )
    host.at(scenario.duration_s, loop.stop)
    loop.run()
    recording = record(watcher.looks, notes.notes, _facts(scenario, host), built.open_vcpus)
    return Played(recording, thinking, notes.first_failure)


def _facts(scenario: Scenario, host: SimulatedHost) -> HostFacts:
    described = [guest.described for guest in host.guests.values()]
    default_kib = 256 * MIB
    return HostFacts(
        topology=host.topology(),
        memory_kib=host.machine.memory_kib,
        period_s=scenario.period_s,
        smt_ratio=host.machine.kernel.smt_ratio,
        memory_nodes={g.name: g.memory_node for g in described if g.memory_node is not None},
        minimum_kib={
            g.name: g.settings.minimum_kib or min(default_kib, g.memory.maximum_kib)
            for g in described
            if g.memory is not None
        },
        overhead_kib=QEMU_KIB,
    )


def _timing(scenario: Scenario, thinking: Thinking, took_s: float) -> dict[str, float]:
    decisions = max(1, thinking.decisions)
    return {
        "took_s": round(took_s, 3),
        "real_time_ratio": round(scenario.duration_s / took_s, 1),
        "decide_ms": round(thinking.seconds / decisions * 1e3, 3),
    }
