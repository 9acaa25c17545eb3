"""What happened in one run, as arrays: the one thing that metrics and figures look at.

A ``Recording`` covers the steps between looks taken on an even grid that no policy influences. Rows
are steps, columns are vCPUs, pCPUs or guests in a fixed order; NaN where one was not there for the
whole step. ``between`` gives a part of it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from virtbalance.model.guest import VcpuKey
from virtbalance.model.topology import Topology

Floats = npt.NDArray[np.float64]
Mask = frozenset[int]


@dataclass(frozen=True, slots=True)
class VcpuLook:
    """One vCPU at one moment; counters since it started."""

    run_s: float
    wait_s: float
    work_s: float
    demand_ratio: float
    affinity: Mask


@dataclass(frozen=True, slots=True)
class MemoryLook:
    """Memory of one guest at one moment."""

    want_kib: float
    used_kib: float
    cache_kib: float
    usable_kib: float
    actual_kib: float
    target_kib: float
    performance_s: float
    out_of_memory_s: float
    kills: int
    program: str | None


@dataclass(frozen=True, slots=True)
class Look:
    """The host at one moment. Guests are named by UUID."""

    at_s: float
    vcpus: Mapping[VcpuKey, VcpuLook]
    busy_s: Mapping[int, float]
    memory: Mapping[str, MemoryLook]
    weights: Mapping[str, float]
    names: Mapping[str, str]
    available_kib: float = 0.0
    other_kib: float = 0.0
    excess_kib: float = 0.0


@dataclass(frozen=True, slots=True)
class Taking:
    """A balloon target that was set lower, and what was known then."""

    uuid: str
    actual_kib: int
    target_kib: int
    usable_kib: int | None
    maximum_kib: int


@dataclass(frozen=True, slots=True)
class TickNote:
    """What a tick did, without its bulk."""

    at_s: float
    pins: Mapping[VcpuKey, Mask]
    """Affinities set, the final one of each vCPU: a step through a union is no change."""
    resizes: int
    takings: tuple[Taking, ...]
    refused: int
    """Actions that did not end well."""
    amendments: Mapping[str, int]
    """By rule."""
    events: Mapping[str, int]
    """By kind."""
    demand: Mapping[VcpuKey, float] = field(default_factory=dict)
    """What the estimator took each vCPU's demand for."""
    released: frozenset[str] = frozenset()
    """Guests left alone for good: somebody else keeps changing them."""
    stuck: frozenset[str] = frozenset()
    """Guests whose driver the estimator takes for stuck."""


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What does not change during a run."""

    topology: Topology
    memory_kib: int
    period_s: float
    smt_ratio: float = 0.62
    memory_nodes: Mapping[str, int] = field(default_factory=dict)
    """By guest name: the node its memory is on."""
    minimum_kib: Mapping[str, int] = field(default_factory=dict)
    """By guest name: the owner's minimum."""
    overhead_kib: int = 0
    """What a guest costs the host besides its memory."""


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """One run, or a part of it; compared by identity, so that what is made of it can be kept."""

    facts: HostFacts
    times_s: Floats
    """Ends of steps."""
    steps_s: Floats
    """Lengths of steps."""
    vcpus: tuple[VcpuKey, ...]
    cpus: tuple[int, ...]
    guests: tuple[str, ...]
    names: Mapping[str, str]
    run: Floats
    """pCPUs got in each step; likewise ``wait``, ``work`` (speed 1) and ``demand``."""
    wait: Floats
    work: Floats
    demand: Floats
    busy: Floats
    """By pCPU: share of the step it was busy."""
    masks: tuple[Mapping[VcpuKey, Mask], ...]
    """At the end of each step."""
    weights: Floats
    memory: Mapping[str, Floats]
    """By field of ``MemoryLook``: values at the ends of steps; ``*_s``, ``kills``: in the step."""
    programs: Mapping[str, str | None]
    """By guest: how far its consuming program came."""
    available_kib: Floats
    other_kib: Floats
    excess_kib: Floats
    ticks: tuple[TickNote, ...] = ()

    def between(self, from_s: float | None, to_s: float | None) -> "Recording":
        """Return the steps that lie within, and the ticks after ``from_s`` up to ``to_s``."""
        low = -np.inf if from_s is None else from_s
        high = np.inf if to_s is None else to_s
        keep = (self.times_s - self.steps_s >= low - 1e-6) & (self.times_s <= high + 1e-6)
        return replace(
            self,
            times_s=self.times_s[keep],
            steps_s=self.steps_s[keep],
            run=self.run[keep],
            wait=self.wait[keep],
            work=self.work[keep],
            demand=self.demand[keep],
            busy=self.busy[keep],
            masks=tuple(m for m, kept in zip(self.masks, keep, strict=True) if kept),
            weights=self.weights[keep],
            memory={name: values[keep] for name, values in self.memory.items()},
            available_kib=self.available_kib[keep],
            other_kib=self.other_kib[keep],
            excess_kib=self.excess_kib[keep],
            ticks=tuple(t for t in self.ticks if low - 1e-6 <= t.at_s <= high + 1e-6),
        )


def record(
    looks: Sequence[Look],
    ticks: Sequence[TickNote],
    facts: HostFacts,
    open_vcpus: frozenset[tuple[str, int]] = frozenset(),
) -> Recording:
    """Turn looks into arrays. ``open_vcpus``: work not done waits and adds to the demand."""
    vcpus = tuple(dict.fromkeys(key for look in looks for key in look.vcpus))
    guests = tuple(dict.fromkeys(uuid for look in looks for uuid in look.weights))
    names = {uuid: name for look in looks for uuid, name in look.names.items()}
    cpus = tuple(sorted({cpu for look in looks for cpu in look.busy_s}))
    times = np.array([look.at_s for look in looks])
    steps_s = np.diff(times)
    rate = {
        name: _rates(looks, vcpus, name) / steps_s[:, None]
        for name in ("run_s", "wait_s", "work_s")
    }
    demand = _demands(looks, vcpus)
    waiting_open = np.array([(names.get(k.uuid, ""), k.vcpu) in open_vcpus for k in vcpus], bool)
    demand = _with_backlog(demand, rate["work_s"], steps_s, waiting_open)
    busy = np.array([[look.busy_s.get(cpu, np.nan) for cpu in cpus] for look in looks])
    last = {uuid: m for look in looks for uuid, m in look.memory.items()}
    return Recording(
        facts=facts,
        times_s=times[1:],
        steps_s=steps_s,
        vcpus=vcpus,
        cpus=cpus,
        guests=guests,
        names=names,
        run=rate["run_s"],
        wait=rate["wait_s"],
        work=rate["work_s"],
        demand=demand,
        busy=np.diff(busy, axis=0) / steps_s[:, None],
        masks=tuple({k: v.affinity for k, v in look.vcpus.items()} for look in looks[1:]),
        weights=np.array([[k.weights.get(g, np.nan) for g in guests] for k in looks[1:]]),
        memory=_memory(looks, guests),
        programs={uuid: m.program for uuid, m in last.items()},
        available_kib=np.array([look.available_kib for look in looks[1:]]),
        other_kib=np.array([look.other_kib for look in looks[1:]]),
        excess_kib=np.array([look.excess_kib for look in looks[1:]]),
        ticks=tuple(ticks),
    )


def _rates(looks: Sequence[Look], vcpus: Sequence[VcpuKey], name: str) -> Floats:
    """Return the increase in each step; NaN where the counter began anew or was not there."""
    nothing = np.full(len(vcpus), np.nan)
    rows = [nothing.copy() for _ in looks]
    index = {key: at for at, key in enumerate(vcpus)}
    for row, look in zip(rows, looks, strict=True):
        for key, vcpu in look.vcpus.items():
            row[index[key]] = getattr(vcpu, name)
    increase = np.diff(np.array(rows).reshape(len(looks), len(vcpus)), axis=0)
    return np.where(increase < -1e-3, np.nan, np.maximum(increase, 0.0))


def _demands(looks: Sequence[Look], vcpus: Sequence[VcpuKey]) -> Floats:
    """Return the demand at the end of each step: what changes on the grid has changed after it."""
    index = {key: at for at, key in enumerate(vcpus)}
    demand = np.full((len(looks) - 1, len(vcpus)), np.nan)
    for step, look in enumerate(looks[1:]):
        for key, vcpu in look.vcpus.items():
            demand[step, index[key]] = vcpu.demand_ratio
    return demand


def _with_backlog(
    demand: Floats, work: Floats, steps_s: Floats, waiting: npt.NDArray[np.bool_]
) -> Floats:
    """Add to what arrives in a step what is left of earlier steps, up to a whole pCPU."""
    if not waiting.any():
        return demand
    demand = demand.copy()
    left_s = np.zeros(int(waiting.sum()))
    for step, length_s in enumerate(steps_s):
        arrived_s = np.nan_to_num(demand[step, waiting]) * length_s
        done_s = np.nan_to_num(work[step, waiting]) * length_s
        wanted_s = arrived_s + left_s
        demand[step, waiting] = np.minimum(1.0, wanted_s / length_s)
        left_s = np.maximum(0.0, wanted_s - done_s)
    return demand


_IN_STEP = frozenset({"performance_s", "out_of_memory_s", "kills"})
_MEMORY_FIELDS = (
    "want_kib",
    "used_kib",
    "cache_kib",
    "usable_kib",
    "actual_kib",
    "target_kib",
    "performance_s",
    "out_of_memory_s",
    "kills",
)


def _memory(looks: Sequence[Look], guests: Sequence[str]) -> dict[str, Floats]:
    if not any(look.memory for look in looks):
        return {}
    fields = {}
    for name in _MEMORY_FIELDS:
        values = np.array(
            [
                [getattr(look.memory[g], name) if g in look.memory else np.nan for g in guests]
                for look in looks
            ],
            float,
        )
        fields[name] = np.diff(values, axis=0) if name in _IN_STEP else values[1:]
    return fields
