"""From a scenario to a simulated host: guests, loads, wants, and what happens on the way."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from virtbalance.bench.schema import (
    ArrivalsLoad,
    BurstsLoad,
    ConstantWant,
    EventTable,
    GuestTable,
    HogLoad,
    HostTable,
    IdleLoad,
    Load,
    LoopLoad,
    MemoryTable,
    NoiseLoad,
    PhasesLoad,
    RampWant,
    Scenario,
    StepsWant,
)
from virtbalance.bench.schema import Want as WantTable
from virtbalance.bench.trace_guests import TraceGuests, trace_guests
from virtbalance.model.guest import USUAL_SHARES, GuestDefinition, GuestSettings
from virtbalance.model.topology import Topology, flat_topology
from virtbalance.simulation.event import EventCpu
from virtbalance.simulation.fluid import FluidCpu
from virtbalance.simulation.guest import Balloon, Lie, SimGuest, SimMemory, SimVcpu, Statistics
from virtbalance.simulation.host import SimulatedHost
from virtbalance.simulation.machine import SimMachine, layered_topology
from virtbalance.simulation.want import MIB, Constant, Consume, Ramp, Steps, Want
from virtbalance.simulation.workload import (
    Bursts,
    Closed,
    Noise,
    Phase,
    Phases,
    Spread,
    Workload,
    arrivals,
    hog,
    idle,
    loop,
    scattered,
)
from virtbalance.simulation.workload import Load as PieceLoad
from virtbalance.simulation.workload import Open as OpenLoad

_LATEST_S = 4.0
"""Memory wanted in steps comes up to this much later than written, by the seed."""
_LAUNCH_DUTY = 0.92


@dataclass(frozen=True, slots=True)
class Built:
    """A host ready to run, and what its guests are like."""

    host: SimulatedHost
    open_vcpus: frozenset[tuple[str, int]]
    """Guest name and index of vCPUs whose work waits for them when it is not done."""


def build(scenario: Scenario, seed: int) -> Built:
    """Return the scenario's host at time 0, with its events on the way."""
    drawn = trace_guests(scenario, seed) if scenario.trace else TraceGuests()
    described = [_guest(table, seed) for table in scenario.guests if table.starts_s == 0]
    host = SimulatedHost(
        _machine(scenario.host, drawn.host_mib, seed),
        [*described, *drawn.guests],
        seed=seed,
        cpu_model=EventCpu if scenario.host.model == "event" else FluidCpu,
    )
    for table in scenario.guests:
        if table.starts_s > 0:
            host.at(table.starts_s, _starting(host, table, seed))
        if table.ends_s is not None:
            host.at(table.ends_s, _ending(host, table.name))
    for event in scenario.events:
        _schedule(host, event, event.at_s, scenario.duration_s)
    opened = frozenset(
        (table.name, index)
        for table in scenario.guests
        for index in range(table.vcpus)
        if isinstance(table.load, ArrivalsLoad)
        or (isinstance(table.load, NoiseLoad) and table.load.open)
    )
    return Built(host, opened | drawn.open_vcpus)


# The machine


def _machine(table: HostTable, memory_mib: float | None, seed: int) -> SimMachine:
    topology = topology_of(table)
    busy = () if table.other_work == IdleLoad() else sorted(topology.usable)
    return SimMachine(
        topology=topology,
        other_work={cpu: workload_of(table.other_work, f"cpu{cpu}", seed) for cpu in busy},
        memory_kib=round((memory_mib or table.memory_mib) * MIB),
        other_memory=want_of(table.other),
        swap_kib=round(table.swap_mib * MIB),
    )


def topology_of(table: HostTable) -> Topology:
    """Return the pCPUs a host table describes."""
    if table.numbers:
        flat = flat_topology(max(table.numbers) + 1)
        topology = Topology(tuple(flat.by_id[number] for number in sorted(table.numbers)))
    elif table.pcpus is not None:
        topology = flat_topology(table.pcpus)
    else:
        topology = layered_topology(
            table.nodes, table.caches, table.cores, table.threads, round(table.memory_mib * MIB)
        )
    offline = set(table.offline)
    return replace(
        topology,
        pcpus=tuple(replace(pcpu, online=pcpu.id not in offline) for pcpu in topology.pcpus),
    )


# Guests


def _guest(table: GuestTable, seed: int) -> SimGuest:
    workload = _with_launch(table, seed)
    return SimGuest(
        name=table.name,
        vcpus=tuple(SimVcpu(workload, start_mask(table, j)) for j in range(table.vcpus)),
        memory=_memory(table, table.memory, seed) if table.memory else None,
        settings=GuestSettings(
            weight=table.weight,
            minimum_kib=_minimum_kib(table.memory),
            swap=True if table.memory and table.memory.swap_told else None,
        ),
        definition=GuestDefinition(
            cpu_shares=round(USUAL_SHARES * table.weight),
            quota_ratio=table.quota,
            stats_period_s=1,
            autodeflate=table.memory is not None and table.memory.autodeflate,
        ),
        memory_node=table.node,
    )


def start_mask(table: GuestTable, vcpu: int) -> frozenset[int] | None:
    """Return where a vCPU is pinned at the start; ``None``: it may run anywhere."""
    if table.spread_over is not None:
        return frozenset({table.spread_over[vcpu % len(table.spread_over)]})
    return None if table.pin is None else frozenset(table.pin)


def _with_launch(table: GuestTable, seed: int) -> Workload:
    if not table.launch_s:
        return workload_of(table.load, table.name, seed)
    # Guests do not finish launching at the same moment.
    source = random.Random(f"launch/{seed}/{table.name}")  # noqa: S311 - reproducible, not secret
    launch_s = table.launch_s * source.uniform(0.9, 1.1)
    return Phases((Phase(launch_s, Closed(_LAUNCH_DUTY)), Phase(1.0, _steady(table.load))))


def _steady(load: Load) -> PieceLoad:
    match load:
        case LoopLoad(duty=duty) | NoiseLoad(mean=duty) if duty > 0:
            return Closed(duty)
        case HogLoad():
            return Closed(1.0)
        case ArrivalsLoad():
            return OpenLoad(load.rate, load.work_ms / 1e3, Spread(load.spread))
        case IdleLoad():
            return OpenLoad(0.0)
    raise ValueError("launch_s goes with a loop, noise, hog, arrivals or idle load")


def workload_of(load: Load, name: str, seed: int) -> Workload:
    """Return what a load table describes, for the simulator."""
    made: Workload
    match load:
        case IdleLoad():
            made = idle()
        case HogLoad():
            made = hog()
        case LoopLoad():
            spread = Spread(load.spread)
            made = loop(load.duty, load.work_ms / 1e3, spread) if load.duty else idle()
        case ArrivalsLoad():
            made = arrivals(load.rate, load.work_ms / 1e3, Spread(load.spread))
        case NoiseLoad():
            made = Noise(load.mean, load.deviation, load.step_s, load.open)
        case BurstsLoad():
            closed = Closed(load.duty)
            made = Bursts(load.on_s, load.off_s, closed, Spread(load.spread), load.group)
        case PhasesLoad():
            made = Phases(_phases(load, name, seed), load.repeat)
    return made


def _phases(load: PhasesLoad, name: str, seed: int) -> tuple[Phase, ...]:
    if not load.deviation:
        return tuple(Phase(p.seconds, _closed(p.duty)) for p in load.phases)
    source = random.Random(f"phases/{seed}/{name}")  # noqa: S311 - reproducible, not secret
    return tuple(
        Phase(1.0, _closed(scattered(phase.duty, load.deviation, source)))
        for phase in load.phases
        for _ in range(round(phase.seconds))
    )


def _closed(duty: float) -> PieceLoad:
    return Closed(duty) if duty > 0 else OpenLoad(0.0)


# Memory


def want_of(table: WantTable, late_s: float = 0.0) -> Want:
    """Return the curve a want table describes; its steps come late by so much."""
    match table:
        case ConstantWant():
            return Constant(table.mib * MIB)
        case RampWant():
            return Ramp(
                table.from_mib * MIB, table.to_mib * MIB, table.start_s, table.rate_mib_s * MIB
            )
        case StepsWant():
            steps = tuple((at_s + late_s if at_s else 0.0, mib * MIB) for at_s, mib in table.steps)
            return Steps(steps, table.repeat_s)


def _minimum_kib(table: MemoryTable | None) -> int | None:
    return None if table is None or table.minimum_mib is None else round(table.minimum_mib * MIB)


def _memory(guest: GuestTable, table: MemoryTable, seed: int) -> SimMemory:
    program, balloon, told = table.program, table.balloon, table.statistics
    # A step falls between two ticks: where, is the seed's. Seed 0 is the scenario as written.
    source = random.Random(f"steps/{seed}/{guest.name}")  # noqa: S311 - reproducible, not secret
    late_s = source.uniform(0.0, _LATEST_S) if seed else 0.0
    lie = None
    if told.lie_usable_mib is not None:
        lie_kib = round(told.lie_usable_mib * MIB)
        lie = Lie(usable_kib=lie_kib, unused_kib=lie_kib)
    return SimMemory(
        maximum_kib=round(table.maximum_mib * MIB),
        balloon_kib=None if table.start_mib is None else round(table.start_mib * MIB),
        want=want_of(table.want, late_s),
        program=None
        if program is None
        else Consume(
            program.start_s,
            program.rate_mib_s * MIB,
            None if program.stop_mib is None else program.stop_mib * MIB,
        ),
        cache_kib=table.cache_mib * MIB,
        swap_kib=round(table.swap_mib * MIB),
        balloon=Balloon(
            balloon.present,
            balloon.inflate_mib_s * MIB,
            balloon.deflate_mib_s * MIB,
            ready_after_s=balloon.ready_after_s,
            stuck_s=balloon.stuck_s,
        ),
        statistics=Statistics(told.present, told.silent_s, lie),
    )


# What happens


def _starting(host: SimulatedHost, table: GuestTable, seed: int) -> Callable[[], object]:
    return lambda: host.start(_guest(table, seed))


def _ending(host: SimulatedHost, name: str) -> Callable[[], object]:
    return lambda: host.vanish(host.uuid_of(name))


def _schedule(host: SimulatedHost, event: EventTable, at_s: float, end_s: float) -> None:
    last_s = end_s if event.until_s is None else event.until_s
    if at_s > last_s:
        return

    def happen() -> None:
        _EVENTS[event.kind](host, event)
        if event.every_s is not None:
            _schedule(host, event, at_s + event.every_s, end_s)

    host.at(at_s, happen)


def _meant(host: SimulatedHost, event: EventTable) -> list[str]:
    """Return the UUIDs of the guests an event is about; those that are gone are left out."""
    pattern = event.guest or ""
    return [u for u, g in host.guests.items() if fnmatchcase(g.described.name, pattern)]


def _pin(host: SimulatedHost, event: EventTable) -> None:
    for uuid in _meant(host, event):
        host.pin(uuid, event.vcpu, frozenset(event.cpus))


def _resize(host: SimulatedHost, event: EventTable) -> None:
    assert event.mib is not None
    for uuid in _meant(host, event):
        host.resize(uuid, round(event.mib * MIB))


def _weigh(host: SimulatedHost, event: EventTable) -> None:
    assert event.weight is not None
    for uuid in _meant(host, event):
        described = host.guests[uuid].described
        settings = replace(described.settings, weight=event.weight)
        host.change(uuid, replace(described, settings=settings))


def _plug(host: SimulatedHost, event: EventTable) -> None:
    assert event.load is not None
    for uuid in _meant(host, event):
        name = host.guests[uuid].described.name
        host.plug(uuid, event.vcpu, SimVcpu(workload_of(event.load, name, 0)))


def _unplug(host: SimulatedHost, event: EventTable) -> None:
    for uuid in _meant(host, event):
        host.unplug(uuid, event.vcpu)


def _each(method: str) -> Callable[[SimulatedHost, EventTable], None]:
    def happen(host: SimulatedHost, event: EventTable) -> None:
        for uuid in _meant(host, event):
            getattr(host, method)(uuid)

    return happen


def _online(*, online: bool) -> Callable[[SimulatedHost, EventTable], None]:
    def happen(host: SimulatedHost, event: EventTable) -> None:
        assert event.cpu is not None
        host.set_online(event.cpu, online=online)

    return happen


def _answer_late(host: SimulatedHost, event: EventTable) -> None:
    assert event.seconds is not None
    for uuid in _meant(host, event):
        host.answer_late(uuid, event.seconds)


def _lose_connection(host: SimulatedHost, event: EventTable) -> None:
    host.lose_connection(round(event.seconds or 0))


_EVENTS: Mapping[str, Callable[[SimulatedHost, EventTable], None]] = {
    "pause": _each("pause"),
    "resume": _each("resume"),
    "restart": _each("restart"),
    "substitute": _each("substitute"),
    "pin": _pin,
    "resize": _resize,
    "weight": _weigh,
    "plug": _plug,
    "unplug": _unplug,
    "offline": _online(online=False),
    "online": _online(online=True),
    "answer-late": _answer_late,
    "lose-connection": _lose_connection,
}
