"""Looks at real guests: the host's counters, and what each guest says it got done.

Work is counted by the guest's program and told in seconds of a free pCPU: as many as the same load
took for as many turns when it ran alone. What a loop wants is what it was set to, at the speed it
has now: a program that gets less done in a second of CPU time (in company, or since the machine has
become slower) is busy for longer between two pauses.

Example: a loop of 0.5 counts 1,000 turns a second of CPU time when it runs alone, 800 in company.
It is busy 1.25 times as long and pauses as long as before, so it wants 1.25 / (1.25 + 1) = 0.56.
"""

import math
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple, Self

from virtbalance.bench.lab_stage import Stage
from virtbalance.bench.recording import Look, MemoryLook, VcpuLook
from virtbalance.bench.schema import (
    ArrivalsLoad,
    BurstsLoad,
    GuestTable,
    HogLoad,
    Load,
    LoopLoad,
    NoiseLoad,
    PhasesLoad,
    Scenario,
)
from virtbalance.model.guest import GuestState, RoleName, VcpuKey
from virtbalance.model.snapshot import GuestSample, Snapshot, VcpuSample

if TYPE_CHECKING:
    from virtbalance.lab import Report

_MIB = 1024
_ENDS = {"limit": "stopped", "killed": "died early"}
_PACE_LOOKS = 11


class _Counted(NamedTuple):
    """What a vCPU had done at a look."""

    nominal: float
    run_s: float
    turns: int


class Looker:
    """Makes looks of snapshots; a context, because guests are asked side by side."""

    def __init__(self, scenario: Scenario, stage: Stage, began_ns: int) -> None:
        self._role = scenario.role
        self._tables = {table.name: table for table in scenario.guests}
        self._stage = stage
        self._began_ns = began_ns
        self._pool = ThreadPoolExecutor(max(1, len(stage.guests)))
        self._reports: dict[str, Report] = {}
        self._counted: dict[VcpuKey, deque[_Counted]] = {}
        """The last looks, as long as the load was told the same."""
        self._work_s: dict[VcpuKey, float] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def look(self, snapshot: Snapshot) -> Look:
        """Return what is so at the time of a snapshot just taken."""
        ours = [guest for guest in snapshot.guests if guest.name in self._tables]
        self._ask([guest.name for guest in ours if guest.state is GuestState.RUNNING])
        at_s = (snapshot.taken_ns - self._began_ns) / 1e9
        host = snapshot.memory
        rss_kib = sum((g.memory.rss_kib or 0) for g in snapshot.guests if g.memory)
        return Look(
            at_s=at_s,
            vcpus={key: vcpu for guest in ours for key, vcpu in self._vcpus(guest, at_s).items()},
            busy_s={pcpu.id: pcpu.busy_ns / 1e9 for pcpu in snapshot.pcpus},
            memory={
                guest.uuid: look
                for guest in ours
                if self._role is RoleName.MEMORY and (look := self._memory(guest)) is not None
            },
            weights={guest.uuid: guest.settings.weight for guest in ours},
            names={guest.uuid: guest.name for guest in snapshot.guests},
            available_kib=host.available_kib if host else 0.0,
            other_kib=host.total_kib - host.available_kib - rss_kib if host else 0.0,
        )

    def _ask(self, names: list[str]) -> None:
        """Get new reports; who does not run keeps the last one."""
        asked = [
            name for name in names if self._role is RoleName.CPU or _has_program(self._tables[name])
        ]
        reports = self._pool.map(lambda name: self._stage.guests[name].report(), asked)
        self._reports.update(zip(asked, reports, strict=True))

    def _vcpus(self, guest: GuestSample, at_s: float) -> dict[VcpuKey, VcpuLook]:
        load = self._tables[guest.name].load
        return {
            (key := VcpuKey(guest.uuid, vcpu.index)): self._vcpu(key, guest.name, vcpu, load, at_s)
            for vcpu in guest.vcpus
        }

    def _vcpu(self, key: VcpuKey, name: str, vcpu: VcpuSample, load: Load, at_s: float) -> VcpuLook:
        report = self._reports.get(name)
        turns = sum(cpu.iterations for cpu in report.cpus if cpu.cpu == key.vcpu) if report else 0
        now = _Counted(nominal_demand(load, at_s), vcpu.run_ns / 1e9, turns)
        alone_per_s = self._turns_per_s(load, at_s)
        seen = self._counted.setdefault(key, deque(maxlen=_PACE_LOOKS))
        work_s = self._work_s.get(key, 0.0)
        if seen:
            work_s += (turns - seen[-1].turns) / alone_per_s
        if seen and seen[-1].nominal != now.nominal:
            seen.clear()
        seen.append(now)
        self._work_s[key] = work_s
        return VcpuLook(
            run_s=now.run_s,
            wait_s=(vcpu.wait_ns or 0) / 1e9,
            work_s=work_s,
            demand_ratio=_demand_at_pace(seen[0], now, alone_per_s),
            affinity=vcpu.affinity or frozenset(),
        )

    def _turns_per_s(self, load: Load, at_s: float) -> float:
        if isinstance(load, NoiseLoad | PhasesLoad):
            loop = self._stage.loops.get(nominal_demand(load, at_s))
            if loop is not None:
                return loop.turns_per_s
        return self._stage.turns_per_s

    def _memory(self, guest: GuestSample) -> MemoryLook | None:
        sample, table = guest.memory, self._tables[guest.name]
        if sample is None or sample.available_kib is None or sample.usable_kib is None:
            return None
        used_kib = max(0, sample.available_kib - sample.usable_kib)
        program = None
        kills = 0
        if _has_program(table) and guest.name in self._reports:
            report = self._reports[guest.name].memory
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


def _has_program(table: GuestTable) -> bool:
    return table.memory is not None and table.memory.program is not None


def _demand_at_pace(first: _Counted, last: _Counted, alone_per_s: float) -> float:
    """Return the share of a free pCPU a load wants that pauses as long as it always did."""
    run_s, turns = last.run_s - first.run_s, last.turns - first.turns
    wanted = last.nominal
    if run_s <= 0 or turns <= 0 or wanted in (0.0, 1.0):
        return wanted
    return wanted * alone_per_s / (wanted * alone_per_s + (1 - wanted) * turns / run_s)


def nominal_demand(load: Load, at_s: float) -> float:
    """Return the share of a free pCPU a load is meant to use at this time."""
    match load:
        case HogLoad():
            return 1.0
        case LoopLoad(duty=ratio) | NoiseLoad(mean=ratio) | ArrivalsLoad(rate=ratio):
            return ratio
        case BurstsLoad():
            return load.duty * load.on_s / (load.on_s + load.off_s)
        case PhasesLoad():
            return _phase_duty(load, at_s)
    return 0.0


def _phase_duty(load: PhasesLoad, at_s: float) -> float:
    if load.repeat:
        at_s %= sum(phase.seconds for phase in load.phases)
    end_s = 0.0
    for phase in load.phases:
        end_s += phase.seconds
        if at_s <= end_s:
            return phase.duty
    return load.phases[-1].duty
