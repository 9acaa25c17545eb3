"""The CPU model for scale: average rates over intervals, by the equilibrium of ``sharing``.

Time goes in steps of ``Kernel.fluid_step_s`` at most; while nothing changes, one step goes as far
as asked. What does not fit a step's averages is carried from step to step: the backlog of arrivals,
the rest of a long piece of work (a closed loop whose work is longer than half a step, and whose
cycle is longer than two, works and thinks in turn instead of on average), and the CPU time lost to
a cold cache after a move.

Counters read as schedstat's do: threads take turns of a slice each, and a wait is credited only
when the thread runs again. So a counter lags by its place in the turn, a function of time alone.

Not modelled: threads moved by the kernel pay no cache cost here; moves by affinity do.
"""

import heapq
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from virtbalance.model.guest import VcpuKey
from virtbalance.model.topology import Topology
from virtbalance.simulation.cpu_model import Counters, Thread
from virtbalance.simulation.errors import ImpossibleStateError
from virtbalance.simulation.kernel import Kernel
from virtbalance.simulation.machine import SimMachine
from virtbalance.simulation.sharing import Crowd, Floats, Layout, Pool, Rates, share
from virtbalance.simulation.streams import Streams
from virtbalance.simulation.workload import Closed, Load, Piece, reach, rest_of_thought_s

_GRACE = 1e-6
_GOLDEN = 0.6180339887  # spreads places in the turn evenly over threads


@dataclass(slots=True)
class _Slot:
    """What is known of a thread besides its numbers."""

    thread: Thread
    affinity: frozenset[int]
    pieces: Iterator[Piece]
    piece: Piece
    paused: bool = False


class FluidCpu:
    """Fills ``CpuModel`` with average rates."""

    def __init__(self, machine: SimMachine, streams: Streams) -> None:
        self._kernel = machine.kernel
        self._steal = machine.steal_ratio
        self._streams = streams
        self._now_s = 0.0
        self._topology = machine.topology
        self._slots: list[_Slot] = []
        self._index: dict[VcpuKey, int] = {}
        self._columns = np.zeros((len(_COLUMNS), 0))
        self._changes: list[tuple[float, VcpuKey]] = []
        self._busy_s = np.zeros(machine.topology.map_length)
        self._layout: Layout | None = None
        self._crowd: Crowd | None = None
        self._rates: Rates | None = None
        self._rates_once = False
        """Whether the rates hold for the last step only."""
        self._any_slow = False

    # Threads come, go and change

    def add(self, thread: Thread, affinity: frozenset[int]) -> None:
        """Let a thread start now."""
        pieces = thread.begin(self._now_s, self._streams)
        slot = _Slot(thread, affinity, pieces, reach(pieces, self._now_s))
        self._index[thread.key] = len(self._slots)
        self._slots.append(slot)
        self._columns = np.hstack([self._columns, np.zeros((len(_COLUMNS), 1))])
        self._go_on(self._index[thread.key], None)
        heapq.heappush(self._changes, (slot.piece.until_s, thread.key))
        self._dirty()

    def remove(self, key: VcpuKey) -> None:
        """Let a thread end."""
        at = self._index[key]
        del self._slots[at]
        self._columns = np.delete(self._columns, at, axis=1)
        self._index = {slot.thread.key: i for i, slot in enumerate(self._slots)}
        self._changes = [change for change in self._changes if change[1] != key]
        heapq.heapify(self._changes)
        self._dirty()

    def allow(self, key: VcpuKey, affinity: frozenset[int]) -> None:
        """Change where a thread may run; a thread that has to leave its pCPUs loses its caches."""
        at = self._index[key]
        slot = self._slots[at]
        if slot.affinity == affinity:
            return
        if not slot.affinity & affinity:
            self._columns[_DEBT, at] += _move_cost_s(
                self._kernel, self._topology, slot.affinity, affinity
            )
        slot.affinity = affinity
        self._layout = self._rates = None

    def pause(self, key: VcpuKey, *, paused: bool) -> None:
        """Stop or continue a thread's work; arrivals stop as well."""
        self._slots[self._index[key]].paused = paused
        self._crowd = self._rates = None

    def set_topology(self, topology: Topology) -> None:
        """Take CPUs on line or off; the caller has moved threads off those that go."""
        self._topology = topology
        self._dirty()

    # Time

    def advance(self, to_s: float) -> None:
        """Go on to this time."""
        while self._now_s < to_s - 1e-9:
            self._take_up_changes()
            if self._crowd is None and self._slots:
                self._crowd = self._gather()
            end_s = min(to_s, self._next_look())
            self._step(end_s - self._now_s)
            self._now_s = end_s

    def _take_up_changes(self) -> None:
        """Begin the pieces that are due."""
        due_s = self._now_s + 1e-9
        while self._changes and self._changes[0][0] <= due_s:
            _, key = heapq.heappop(self._changes)
            at = self._index[key]
            slot = self._slots[at]
            former, slot.piece = slot.piece.load, reach(slot.pieces, due_s)
            self._go_on(at, former)
            heapq.heappush(self._changes, (slot.piece.until_s, key))
            self._crowd = self._rates = None

    def _next_look(self) -> float:
        """Return when rates may have to be found anew."""
        step_s = self._kernel.fluid_step_s
        grid_s = (math.floor(self._now_s / step_s + 1e-6) + 1.0) * step_s
        change_s = self._changes[0][0] if self._changes else math.inf
        if self._unsteady():
            return grid_s
        # Changes within one step are taken up together, at its end.
        steps = change_s / step_s - 1e-6
        return max(grid_s, math.ceil(steps) * step_s) if steps < math.inf else math.inf

    def _unsteady(self) -> bool:
        """Say whether what is to be done changes from step to step."""
        return self._any_slow or bool(self._columns[_BACKLOG].any())

    def _step(self, dt_s: float) -> None:
        if not self._slots:
            return
        if self._layout is None:
            self._layout = self._lay_out()
        assert self._crowd is not None
        crowd, once = self._crowd, self._unsteady()
        if once:
            crowd = self._with_leftovers(crowd, dt_s)
        if self._rates is None or once or self._rates_once:
            self._rates = share(crowd, self._layout, self._columns[_PRESENCE])
            self._columns[_PRESENCE] = self._rates.presence
            _check(self._rates, self._layout)
        self._rates_once = once
        self._count(self._rates, dt_s)

    def _count(self, rates: Rates, dt_s: float) -> None:
        columns = self._columns
        columns[_RUN] += rates.run * dt_s
        columns[_WAIT] += rates.wait * dt_s
        self._busy_s[self._busy_at] += rates.busy * dt_s
        done = rates.run * rates.speed * dt_s
        lost = np.minimum(columns[_DEBT], done)
        columns[_DEBT] -= lost
        done -= lost
        columns[_WORK] += done
        if self._any_open or columns[_BACKLOG].any():
            arrived = np.where(self._paused, 0.0, self._arriving * dt_s)
            left = columns[_BACKLOG] + arrived - done
            columns[_BACKLOG] = np.where(self._is_closed | (left < _GRACE * dt_s), 0.0, left)
        if self._any_slow:
            self._think_or_work(done, rates, dt_s)

    # Long cycles: work and think in turn

    def _is_long(self, load: Load | None) -> bool:
        if not isinstance(load, Closed) or load.duty >= 1.0:
            return False
        step_s = self._kernel.fluid_step_s
        return load.work_s >= step_s / 2 and load.work_s / load.duty > 2 * step_s

    def _go_on(self, at: int, former: Load | None) -> None:
        """Let a thread whose load changed go on with its work or thought, if it has a long cycle.

        One that had no long cycle before begins anywhere in it: if each piece of a few seconds
        began with work, a loop that works once a minute would work in every piece.
        """
        columns, load = self._columns, self._slots[at].piece.load
        if not self._is_long(load):
            columns[_WORK_LEFT, at] = columns[_AWAKE_AT, at] = 0.0
            return
        assert isinstance(load, Closed)
        if isinstance(former, Closed) and self._is_long(former):
            rest_s = columns[_AWAKE_AT, at] - self._now_s
            columns[_AWAKE_AT, at] = self._now_s + rest_of_thought_s(rest_s, former, load)
            return
        place = self._slots[at].thread.source.random()
        columns[_WORK_LEFT, at] = 0.0
        columns[_AWAKE_AT, at] = self._now_s + place * load.work_s / load.duty

    def _with_leftovers(self, crowd: Crowd, dt_s: float) -> Crowd:
        """Return the crowd with what is left to do now: backlog, and the rest of long work."""
        columns = self._columns
        rate = crowd.rate + np.where(self._paused, 0.0, columns[_BACKLOG] / dt_s)
        if self._any_slow:
            for at in np.flatnonzero(self._slow & (columns[_WORK_LEFT] <= 0)).tolist():
                self._wake_if_due(at, dt_s)
            asleep = columns[_WORK_LEFT] <= 0
            long_rate = np.where(asleep | self._paused, 0.0, columns[_WORK_LEFT] / dt_s)
            rate = np.where(self._slow, long_rate, rate)
        return replace(crowd, closed=crowd.closed & ~self._slow, rate=rate)

    def _wake_if_due(self, at: int, dt_s: float) -> None:
        """Begin the next long work if most of this step lies after the thinking."""
        early_s = self._now_s + dt_s / 2 - self._columns[_AWAKE_AT, at]
        if early_s < 0:
            return
        load = self._slots[at].piece.load
        assert isinstance(load, Closed)
        self._columns[_WORK_LEFT, at] = load.spread.draw(load.work_s, self._sources[at])
        # Having begun a little early or late is made good by the next thinking.
        self._columns[_LATE, at] = self._now_s - self._columns[_AWAKE_AT, at]

    def _think_or_work(self, done: Floats, rates: Rates, dt_s: float) -> None:
        columns = self._columns
        working = self._slow & (columns[_WORK_LEFT] > 0) & ~self._paused
        columns[_WORK_LEFT] = np.where(working, columns[_WORK_LEFT] - done, columns[_WORK_LEFT])
        for at in np.flatnonzero(working & (columns[_WORK_LEFT] <= _GRACE)).tolist():
            load = self._slots[at].piece.load
            assert isinstance(load, Closed)
            idle_s = (1.0 - rates.run[at] - rates.wait[at]) * dt_s
            think_s = load.spread.draw(load.think_s, self._sources[at])
            columns[_WORK_LEFT, at] = 0.0
            columns[_AWAKE_AT, at] = self._now_s + dt_s - idle_s + think_s - columns[_LATE, at]

    # What is there, as arrays

    def _dirty(self) -> None:
        self._layout = self._crowd = self._rates = None

    def _lay_out(self) -> Layout:
        pcpus = [pcpu for pcpu in self._topology.pcpus if pcpu.online]
        self._busy_at = _ints([pcpu.id for pcpu in pcpus])
        at = {pcpu.id: i for i, pcpu in enumerate(pcpus)}
        siblings = {
            p.id: next((q.id for q in pcpus if q.core == p.core and q.id != p.id), None)
            for p in pcpus
        }
        by_mask: dict[frozenset[int], list[int]] = {}
        for index, slot in enumerate(self._slots):
            by_mask.setdefault(slot.affinity, []).append(index)
        pinned = np.full(len(self._slots), -1, dtype=np.intp)
        pools = []
        for mask, threads in by_mask.items():
            cpus = sorted(at[cpu] for cpu in mask if cpu in at)
            if not cpus:
                raise ImpossibleStateError(f"threads on pCPUs that are not there: {sorted(mask)}")
            if len(cpus) == 1:
                pinned[threads] = cpus[0]
            else:
                cores = [pcpus[cpu].core for cpu in cpus]
                first = np.array([core not in cores[:i] for i, core in enumerate(cores)])
                pools.append(Pool(_ints(cpus), _ints(threads), first))
        return Layout(
            pinned_cpu=pinned,
            pools=tuple(pools),
            speed=np.array([pcpu.speed_ratio for pcpu in pcpus]),
            available=np.array([1.0 - self._steal.get(pcpu.id, 0.0) for pcpu in pcpus]),
            sibling=_ints([-1 if (s := siblings[p.id]) is None else at[s] for p in pcpus]),
            node=_ints([pcpu.node for pcpu in pcpus]),
            slice_s=self._kernel.slice_s,
            smt_ratio=self._kernel.smt_ratio,
            remote_slowdown_ratio=self._kernel.remote_slowdown_ratio,
        )

    def _gather(self) -> Crowd:
        loads = [slot.piece.load for slot in self._slots]
        threads = [slot.thread for slot in self._slots]
        self._paused = np.array([slot.paused for slot in self._slots])
        self._is_closed = np.array([isinstance(load, Closed) for load in loads])
        self._any_open = not self._is_closed.all()
        self._slow = np.array([self._is_long(load) for load in loads])
        self._any_slow = bool(self._slow.any())
        self._arriving = np.array([0.0 if isinstance(x, Closed) else x.rate for x in loads])
        self._sources = [slot.thread.source for slot in self._slots]
        guests: dict[str, int] = {}
        return Crowd(
            closed=self._is_closed & ~self._paused,
            think_ratio=np.array([_think_ratio(load) for load in loads]),
            rate=np.where(self._paused, 0.0, self._arriving),
            work_s=np.array([_work_s(load) for load in loads]),
            think_s=np.array([_think_s(load) for load in loads]),
            shares=np.array([thread.shares for thread in threads]),
            guest=_ints([guests.setdefault(thread.group, len(guests)) for thread in threads]),
            quota=np.array([thread.quota_ratio or np.inf for thread in threads]),
            memory_node=_ints([-1 if (n := t.memory_node) is None else n for t in threads]),
        )

    # What is seen

    def counters(self) -> Mapping[VcpuKey, Counters]:
        """Return what schedstat would show now, by thread."""
        columns = self._columns
        run_s, wait_s = columns[_RUN], columns[_WAIT]
        if self._rates is not None and self._kernel.slice_s > 0:
            ran_ahead_s, waited_s = self._place_in_turn(self._rates)
            run_s = run_s + ran_ahead_s
            wait_s = wait_s - waited_s
        columns[_SHOWN_RUN] = np.maximum(columns[_SHOWN_RUN], run_s)
        columns[_SHOWN_WAIT] = np.maximum(columns[_SHOWN_WAIT], wait_s)
        shown = (columns[[_SHOWN_RUN, _SHOWN_WAIT]] * 1e9).astype(np.int64).tolist()
        return dict(zip(self._index, map(Counters, *shown), strict=True))

    def _place_in_turn(self, rates: Rates) -> tuple[Floats, Floats]:
        """Return run time ahead of the average, and waiting not yet credited."""
        present = rates.run + rates.wait
        factor = np.maximum(present / np.maximum(rates.run, 1e-9), 1.0)
        turn_s = factor * self._kernel.slice_s * present
        place = (np.arange(len(present)) * _GOLDEN + self._now_s / np.maximum(turn_s, 1e-9)) % 1
        ran = np.minimum(place, 1.0 / factor) - place / factor
        waited = np.where(place * factor < 1.0, 0.0, 1.0) * place * (1.0 - 1.0 / factor)
        return turn_s * ran, turn_s * waited

    def work_s(self) -> Mapping[VcpuKey, float]:
        """Return the work done, by thread, in seconds of a pCPU of speed 1."""
        return dict(zip(self._index, self._columns[_WORK].tolist(), strict=True))

    def demand_ratio(self) -> Mapping[VcpuKey, float]:
        """Return what each thread would use of a free pCPU now."""
        return {
            slot.thread.key: 0.0 if slot.paused else slot.piece.load.demand_ratio
            for slot in self._slots
        }

    def busy_ns(self) -> Mapping[int, int]:
        """Return the time each pCPU was busy."""
        busy_ns = (self._busy_s * 1e9).astype(np.int64).tolist()
        return {pcpu.id: busy_ns[pcpu.id] for pcpu in self._topology.pcpus}


_COLUMNS = (
    _RUN,
    _WAIT,
    _SHOWN_RUN,
    _SHOWN_WAIT,
    _WORK,
    _BACKLOG,
    _DEBT,
    _PRESENCE,
    _WORK_LEFT,
    _AWAKE_AT,
    _LATE,
) = range(11)


def _think_ratio(load: Load) -> float:
    return load.think_s / load.work_s if isinstance(load, Closed) else 0.0


def _work_s(load: Load) -> float:
    return np.inf if isinstance(load, Closed) and load.duty >= 1.0 else load.work_s


def _think_s(load: Load) -> float:
    """Return the mean pause; of arrivals, what the work leaves of the time between two."""
    if isinstance(load, Closed):
        return load.think_s
    return max(0.0, load.work_s / load.rate - load.work_s) if load.rate > 0 else np.inf


def _move_cost_s(
    kernel: Kernel, topology: Topology, old: frozenset[int], new: frozenset[int]
) -> float:
    """Return the cost of the nearest move from one mask to another."""
    known = topology.by_id
    return min(
        (
            kernel.move_cost_s(known[a], known[b])
            for a in old
            if a in known
            for b in new
            if b in known
        ),
        default=0.0,
    )


def _ints(values: list[int]) -> npt.NDArray[np.intp]:
    return np.array(values, dtype=np.intp)


def _check(rates: Rates, layout: Layout) -> None:
    """Raise if a thread ran longer than time went on, or a pCPU was more than busy."""
    if (rates.busy - layout.available).max() > _GRACE:
        raise ImpossibleStateError(f"a pCPU is more than busy: {rates.busy.max()}")
    if rates.run.min() < -_GRACE or (rates.run + rates.wait).max() > 1.0 + _GRACE:
        raise ImpossibleStateError("a thread ran and waited for longer than time went on")
    if abs(float(rates.run.sum() - rates.busy.sum())) > _GRACE * max(1, len(rates.run)):
        raise ImpossibleStateError("run time of threads and busy time of pCPUs differ")
