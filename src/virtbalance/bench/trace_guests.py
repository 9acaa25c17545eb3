"""Guests made of recorded ones: which are drawn, and how their values become loads and wants."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from virtbalance.bench.schema import Scenario, TraceTable
from virtbalance.bench.traces import RecordedGuest, recorded
from virtbalance.model.guest import GuestDefinition, GuestSettings, RoleName
from virtbalance.simulation.guest import SimGuest, SimMemory, SimVcpu
from virtbalance.simulation.want import MIB, WantTrace
from virtbalance.simulation.workload import Noise, Trace, Workload

_SCALING_ROUNDS = 20
_WORK_S = 0.001
"""Recorded guests do many short things: with long ones a small value would be nothing for a step,
and much more than itself in another."""
_SMALLEST_MIB, _LARGEST_MIB = 1024.0, 16384.0
_HOST_EXTRA_MIB = 1536.0


@dataclass(frozen=True, slots=True)
class TraceGuests:
    """What came of a trace."""

    guests: tuple[SimGuest, ...] = ()
    open_vcpus: frozenset[tuple[str, int]] = frozenset()
    host_mib: float | None = None


def trace_guests(scenario: Scenario, seed: int) -> TraceGuests:
    """Return guests drawn by the seed. Raises ``ConfigError`` if the trace can't be had."""
    assert scenario.trace is not None
    source = random.Random(f"trace/{scenario.trace.source}/{seed}")  # noqa: S311 - reproducible
    if scenario.role is RoleName.MEMORY:
        return _memory_guests(scenario.trace, source)
    pcpus = _usable_pcpus(scenario)
    if scenario.trace.source == "static":
        return _static_guests(scenario.trace, pcpus, source)
    return _cpu_guests(scenario.trace, pcpus, source)


def _usable_pcpus(scenario: Scenario) -> int:
    from virtbalance.bench.building import topology_of

    return len(topology_of(scenario.host).usable)


def _cpu_guests(trace: TraceTable, pcpus: int, source: random.Random) -> TraceGuests:
    drawn = _drawn_vcpus(recorded(trace.source, "cpu"), trace, source)
    scale = _scale([values for values, _ in drawn], [count for _, count in drawn], trace, pcpus)
    guests, opened = [], set()
    for number, (values, count) in enumerate(drawn):
        name = f"t{number:03}"
        vcpus = []
        for index in range(count):
            is_open = source.random() < trace.open_ratio
            if is_open:
                opened.add((name, index))
            scaled = tuple(min(1.0, value * scale) for value in values)
            vcpus.append(SimVcpu(Trace(scaled, trace.step_s, is_open, _WORK_S)))
        guests.append(SimGuest(name, tuple(vcpus), None))
    return TraceGuests(tuple(guests), frozenset(opened))


def _drawn_vcpus(
    known: Sequence[RecordedGuest], trace: TraceTable, source: random.Random
) -> list[tuple[tuple[float, ...], int]]:
    """Return values and vCPU count of guests drawn until there are enough vCPUs."""
    drawn: list[tuple[tuple[float, ...], int]] = []
    missing = trace.vcpus
    while missing > 0:
        guest = source.choice(known)
        count = min(guest.vcpus, missing)
        drawn.append((_part(guest.values, trace.steps, source), count))
        missing -= count
    return drawn


def _part(values: tuple[float, ...], steps: int | None, source: random.Random) -> tuple[float, ...]:
    if steps is None or steps >= len(values):
        return values
    first = source.randrange(len(values) - steps + 1)
    return values[first : first + steps]


def _scale(
    rows: Sequence[Sequence[float]], counts: Sequence[int], trace: TraceTable, pcpus: int
) -> float:
    """Return the factor that makes the mean demand the wanted one; no vCPU wants more than 1."""
    wanted = trace.load * pcpus
    scale = 1.0
    for _ in range(_SCALING_ROUNDS):
        mean = sum(
            count * sum(min(1.0, value * scale) for value in row) / len(row)
            for row, count in zip(rows, counts, strict=True)
        )
        if mean <= 0:
            return scale
        scale *= wanted / mean
    return scale


def _static_guests(trace: TraceTable, pcpus: int, source: random.Random) -> TraceGuests:
    means = [source.uniform(0.05, 0.95) for _ in range(trace.vcpus)]
    scale = _scale([[mean] for mean in means], [1] * len(means), trace, pcpus)
    guests, opened = [], set()
    for number, mean in enumerate(means):
        name, value = f"s{number:03}", min(1.0, mean * scale)
        is_open = source.random() < trace.open_ratio
        if is_open:
            opened.add((name, 0))
        load: Workload = Trace((value,), 1e9, is_open, _WORK_S)
        if trace.deviation:
            load = Noise(value, trace.deviation, trace.step_s, is_open, _WORK_S)
        guests.append(SimGuest(name, (SimVcpu(load),), None))
    return TraceGuests(tuple(guests), frozenset(opened))


def _memory_guests(trace: TraceTable, source: random.Random) -> TraceGuests:
    known = recorded(trace.source, "memory")
    drawn = source.sample(list(known), min(trace.guests, len(known)))
    guests, maxima_mib = [], 0.0
    for number, guest in enumerate(drawn):
        maximum_mib = min(_LARGEST_MIB, max(_SMALLEST_MIB, guest.maximum_mib or _SMALLEST_MIB))
        maxima_mib += maximum_mib
        room_mib = 0.97 * maximum_mib - 30.0
        values = _part(guest.values, trace.steps, source)
        want = WantTrace(tuple(min(room_mib, value) * MIB for value in values), trace.step_s)
        memory = SimMemory(
            round(maximum_mib * MIB), want=want, cache_kib=trace.cache_ratio * maximum_mib * MIB
        )
        guests.append(
            SimGuest(
                f"t{number:03}",
                memory=memory,
                settings=GuestSettings(),
                definition=GuestDefinition(stats_period_s=1),
            )
        )
    host_mib = None
    if trace.host_ratio is not None:
        host_mib = trace.host_ratio * maxima_mib + _HOST_EXTRA_MIB
    return TraceGuests(tuple(guests), host_mib=host_mib)
