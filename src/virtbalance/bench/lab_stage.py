"""Real guests made ready for a scenario: what the machine can hold; started, measured, placed."""

import contextlib
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from virtbalance.bench.building import start_mask, topology_of
from virtbalance.bench.schema import (
    BurstsLoad,
    GuestTable,
    HogLoad,
    IdleLoad,
    Load,
    LoopLoad,
    NoiseLoad,
    PhasesLoad,
    Scenario,
)
from virtbalance.control.config import ConfigError
from virtbalance.control.hypervisor import Hypervisor
from virtbalance.model.guest import GuestSettings, RoleName, VcpuKey
from virtbalance.model.plan import Pin, Reason
from virtbalance.model.snapshot import Scope

if TYPE_CHECKING:
    from virtbalance.lab import Guest, GuestSpec, Lab

SENSE_S = 2.0
_MIB = 1024
_GUEST_MIB = 256
_VCPUS_A_PCPU = 4
_SPARE_MIB = 1024
_REST_S = 6.0
"""Guests that have just come up are busy with themselves for some seconds."""
_MEASURE_S = 3.0
_FIRST_COUNT = 200_000
QUICK_PAUSE_US = 2_000
"""Of quick loops. Under TCG each pause costs the emulator's main thread 45 us of a pCPU that the
acceptance cases do not have: with their pauses of 400 us 0.09 of a pCPU for each guest, and four
of them overload two pCPUs whoever runs where."""
_LOADS = (IdleLoad, HogLoad, LoopLoad, NoiseLoad)
_EVENTS = frozenset({"pin", "resize", "pause", "resume"})


@dataclass(frozen=True, slots=True)
class QuickLoop:
    """A loop with short pauses that comes to a wanted duty on a free pCPU."""

    count: int
    """What it counts to between two pauses."""
    turns_per_s: float
    """What it counts in a second of CPU time; a good part of that goes into falling asleep."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Real guests ready for a scenario."""

    guests: Mapping[str, "Guest"]
    uri: str
    loops: Mapping[float, QuickLoop]
    """By duty."""
    turns_per_s: float
    """What a program without pauses counts in a second of CPU time."""


# What the machine can hold


def check_fits(scenario: Scenario) -> None:
    """Raise ``ConfigError`` if this machine can't hold the scenario."""
    where = f"{scenario.name} can't run on the lab"
    pcpus, here = len(topology_of(scenario.host).usable), len(_usable_cpus())
    vcpus = sum(guest.vcpus for guest in scenario.guests)
    wanted_mib = sum(_maximum_mib(guest) for guest in scenario.guests)
    have_mib = _available_mib() - _SPARE_MIB
    strange = [guest.name for guest in scenario.guests if not _is_known(guest.load)]
    late = [guest.name for guest in scenario.guests if guest.starts_s or guest.ends_s]
    happening = sorted({event.kind for event in scenario.events} - _EVENTS)
    objections = (
        (scenario.trace is not None, "its guests are made of a trace"),
        (scenario.role is RoleName.CPU and pcpus != here, f"it has {pcpus} pCPUs, we have {here}"),
        (vcpus > _VCPUS_A_PCPU * here, f"{vcpus} vCPUs are too many for {here} pCPUs"),
        (wanted_mib > have_mib, f"it needs {wanted_mib:.0f} MiB, {have_mib:.0f} are free"),
        (bool(strange), f"no such load for {', '.join(strange[:3])}"),
        (scenario.host.other_work != IdleLoad(), "the host's own work is what it is"),
        (bool(late), f"{', '.join(late[:3])} would have to start or end on the way"),
        (bool(happening), f"{', '.join(happening)} can't be made to happen"),
    )
    for yes, why in objections:
        if yes:
            raise ConfigError(f"{where}: {why}")


def _is_known(load: Load) -> bool:
    """Say whether the guests' program can do this."""
    match load:
        case BurstsLoad():
            return load.duty == 1
        case PhasesLoad():
            return not load.repeat
    return isinstance(load, _LOADS)


def _usable_cpus() -> set[int]:
    return os.sched_getaffinity(0)


def _available_mib() -> float:
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / _MIB
    return 0.0


def _maximum_mib(guest: GuestTable) -> float:
    return guest.memory.maximum_mib if guest.memory else _GUEST_MIB


# Making ready


def prepared(scenario: Scenario, lab: "Lab") -> Stage:
    """Start a scenario's guests and measure what loads come to here."""
    started = lab.start([spec_of(table) for table in scenario.guests])
    guests = {guest.name: guest for guest in started}
    time.sleep(_REST_S)
    if scenario.role is RoleName.MEMORY:
        return Stage(guests, lab.uri, {}, math.nan)
    duties = {duty for table in scenario.guests for duty in _duties(table.load)}
    with door(lab.uri) as hypervisor:
        turns_per_s, loops = _calibrated(hypervisor, started, sorted(duties))
    return Stage(guests, lab.uri, loops, turns_per_s)


def spec_of(table: GuestTable) -> "GuestSpec":
    """Return the lab's description of a scenario's guest."""
    from virtbalance.lab import GuestSpec

    memory = table.memory
    return GuestSpec(
        name=table.name,
        vcpus=table.vcpus,
        maximum_mib=round(_maximum_mib(table)),
        current_mib=None if memory is None or memory.start_mib is None else round(memory.start_mib),
        pins=tuple(start_mask(table, vcpu) or frozenset() for vcpu in range(table.vcpus)),
        zram_mib=round(memory.swap_mib) if memory else 0,
        autodeflate=memory is not None and memory.autodeflate,
        metadata=_wishes(table),
    )


def _wishes(table: GuestTable) -> str:
    """Return the owner's wishes as the programs read them from a guest's metadata."""
    from virtbalance.hypervisor.settings_xml import write_settings

    minimum_mib = table.memory.minimum_mib if table.memory else None
    minimum_kib = None if minimum_mib is None else round(minimum_mib * _MIB)
    return write_settings(GuestSettings(table.weight, minimum_kib)) or ""


def _duties(load: Load) -> Iterator[float]:
    """Yield the duties of quick loops in a load."""
    duties: tuple[float, ...] = ()
    match load:
        case NoiseLoad():
            duties = (load.mean,)
        case PhasesLoad():
            duties = tuple(phase.duty for phase in load.phases)
    yield from (duty for duty in duties if 0 < duty < 1)


def _calibrated(
    hypervisor: Hypervisor, guests: Sequence["Guest"], duties: Sequence[float]
) -> tuple[float, dict[float, QuickLoop]]:
    """Measure turns in a second of CPU time, and the loop for each duty.

    With the first guest alone on its pCPU. A loop of C seconds' counting and a pause of P runs
    C / (C + P) of the time: a measurement at a known count gives P in counts.
    """
    from virtbalance.lab import CountAndSleep, Hog, Off

    first, *others = sorted(_usable_cpus())
    for number, guest in enumerate(guests):
        _pin(hypervisor, guest, 0, frozenset({first} if number == 0 else others or {first}))
    guests[0].load_cpu(0, Hog())
    hog = _measured(hypervisor, guests[0])
    loops = {}
    for duty in duties:
        count = _FIRST_COUNT
        for _ in range(2):
            guests[0].load_cpu(0, CountAndSleep(count, QUICK_PAUSE_US))
            seen = _measured(hypervisor, guests[0])
            run_ratio = min(0.98, max(0.01, seen.run_s / seen.span_s))
            count = max(1, round(count * (1 - run_ratio) / run_ratio * duty / (1 - duty)))
        loops[duty] = QuickLoop(count, seen.turns / seen.run_s)
    guests[0].load_cpu(0, Off())
    return hog.turns / hog.run_s, loops


class _Measured(NamedTuple):
    """What a guest's first vCPU did in some seconds."""

    run_s: float
    span_s: float
    turns: int


def _measured(hypervisor: Hypervisor, guest: "Guest") -> _Measured:
    time.sleep(0.5)
    run_ns, read_ns, turns = _first_vcpu(hypervisor, guest)
    time.sleep(_MEASURE_S)
    later_run_ns, later_read_ns, later_turns = _first_vcpu(hypervisor, guest)
    run_s, span_s = (later_run_ns - run_ns) / 1e9, (later_read_ns - read_ns) / 1e9
    return _Measured(max(1e-9, run_s), span_s, max(1, later_turns - turns))


def _first_vcpu(hypervisor: Hypervisor, guest: "Guest") -> tuple[int, int, int]:
    snapshot = hypervisor.sample(Scope.CPU, SENSE_S)
    sample = next(g for g in snapshot.guests if g.uuid == str(guest.uuid))
    return sample.vcpus[0].run_ns, sample.vcpus[0].read_ns, guest.report().cpus[0].iterations


def place(hypervisor: Hypervisor, scenario: Scenario, guests: Mapping[str, "Guest"]) -> None:
    """Pin every vCPU to where it starts."""
    for table in scenario.guests:
        for vcpu in range(table.vcpus):
            mask = start_mask(table, vcpu) or frozenset(_usable_cpus())
            _pin(hypervisor, guests[table.name], vcpu, mask)


def _pin(hypervisor: Hypervisor, guest: "Guest", vcpu: int, cpus: frozenset[int]) -> None:
    reason = Reason("bench", "where the scenario wants it")
    hypervisor.apply([Pin(VcpuKey(str(guest.uuid), vcpu), cpus, reason)], SENSE_S)


@contextlib.contextmanager
def door(uri: str) -> Iterator[Hypervisor]:
    """Open a connection of one's own to the guests."""
    from virtbalance.hypervisor import connect

    hypervisor = connect(uri)
    try:
        hypervisor.sample(Scope.CPU, SENSE_S)
        yield hypervisor
    finally:
        hypervisor.close()
