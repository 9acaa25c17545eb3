"""The CPU model for truth: every wake-up, slice and migration, one by one.

It plays the same workloads as the fluid model, and is used where that model's averages are in
doubt, and to test it. What the kernel does, in the order in which it matters:

- **who runs**: ``run_queue``'s rule, in slices;
- **wake-up**: on the last pCPU if that is idle, else on an idle one under the same cache (an idle
  core first), else behind the others on the last pCPU;
- **idle pull**: a pCPU about to idle takes a waiting thread from the longest queue, near ones
  first;
- **periodic balance**: every ``Kernel.balance_s`` a pCPU takes a waiting thread from the most
  loaded queue if that is heavier than its own by at least the thread's weight. Two against one
  becomes one against two, so that three equal threads on two pCPUs take turns. A pCPU whose whole
  core idles takes a running thread from a core with two;
- **quota**: periods of 100 ms; who has used his up waits for the next, and the wait is counted.

Cold caches cost run time without work, by the distance of a move. Weights as in ``sharing``.
Not modelled: wake-ups pulled towards the waker, NUMA balancing, energy, frequencies, interrupts.
"""

import heapq
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping

from virtbalance.model.guest import VcpuKey
from virtbalance.model.topology import Pcpu, Topology
from virtbalance.simulation.cpu_model import Counters, Thread
from virtbalance.simulation.errors import ImpossibleStateError
from virtbalance.simulation.machine import SimMachine
from virtbalance.simulation.run_queue import Group, RunQueue, Task
from virtbalance.simulation.streams import Streams
from virtbalance.simulation.workload import Closed, Load, Piece, reach, rest_of_thought_s

QUOTA_PERIOD_S = 0.1
_DONE_S = 1e-9


class EventCpu:
    """Fills ``CpuModel`` with single events."""

    def __init__(self, machine: SimMachine, streams: Streams) -> None:
        self._kernel = machine.kernel
        self._steal = machine.steal_ratio
        self._streams = streams
        self._now_s = 0.0
        self._tasks: dict[VcpuKey, Task] = {}
        self._pieces: dict[VcpuKey, Iterator[Piece]] = {}
        self._groups: dict[str, Group] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._queues: dict[int, RunQueue] = {}
        self._idle_busy_s: dict[int, float] = {}
        self.set_topology(machine.topology)

    # Threads come, go and change

    def add(self, thread: Thread, affinity: frozenset[int]) -> None:
        """Let a thread start now, on the least loaded pCPU it may use."""
        pieces = thread.begin(self._now_s, self._streams)
        piece = reach(pieces, self._now_s)
        group = self._groups.setdefault(thread.group, Group())
        cpu = min(affinity, key=lambda cpu: (self._queues[cpu].load, cpu))
        task = Task(thread, group, affinity, piece, cpu)
        self._tasks[thread.key] = task
        self._pieces[thread.key] = pieces
        self._begin_piece(task, None)

    def remove(self, key: VcpuKey) -> None:
        """Let a thread end."""
        task = self._tasks.pop(key)
        del self._pieces[key]
        self._sleep(task)
        task.calls += 1

    def allow(self, key: VcpuKey, affinity: frozenset[int]) -> None:
        """Change where a thread may run; it leaves a pCPU it may not use at once."""
        task = self._tasks[key]
        task.affinity = affinity
        if task.cpu in affinity:
            return
        target = min(affinity, key=lambda cpu: (self._queues[cpu].load, cpu))
        if task.runnable:
            self._migrate(task, target)
        else:
            self._pay_for_move(task, target)
            task.cpu = target

    def pause(self, key: VcpuKey, *, paused: bool) -> None:
        """Stop or continue a thread; arrivals stop as well."""
        task = self._tasks[key]
        task.paused = paused
        if paused:
            self._sleep(task)
            task.calls += 1
        else:
            self._begin_piece(task, task.piece.load)

    def set_topology(self, topology: Topology) -> None:
        """Take CPUs on line or off."""
        online = {pcpu.id: pcpu for pcpu in topology.pcpus if pcpu.online}
        for cpu in self._queues.keys() - online:
            self._idle_busy_s[cpu] = self._queues.pop(cpu).busy_s
        for cpu in online.keys() - self._queues.keys():
            available = 1.0 - self._steal.get(cpu, 0.0)
            speed = online[cpu].speed_ratio
            queue = RunQueue(cpu, max(self._kernel.slice_s, 1e-5), speed, available)
            queue.busy_s = self._idle_busy_s.get(cpu, 0.0)
            self._queues[cpu] = queue
            self._schedule_balance(queue)
        self._pcpus = online
        self._near = {cpu: _by_distance(pcpu, online.values()) for cpu, pcpu in online.items()}
        self._siblings = {
            cpu: [p.id for p in online.values() if p.core == pcpu.core and p.id != cpu]
            for cpu, pcpu in online.items()
        }

    # Time

    def advance(self, to_s: float) -> None:
        """Go on to this time."""
        while self._timers and self._timers[0][0] < to_s - _DONE_S:
            at_s, _, what = heapq.heappop(self._timers)
            self._now_s = max(self._now_s, at_s)
            what()
        self._now_s = max(self._now_s, to_s)
        for queue in self._queues.values():
            self._settle(queue)

    def _call(self, at_s: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (at_s, next(self._numbers), what))

    def _call_task(self, task: Task, at_s: float, what: Callable[[Task], None]) -> None:
        """Call for a thread unless it has been given another timer or has ended meanwhile."""
        task.calls += 1
        number = task.calls

        def call() -> None:
            if task.calls == number:
                what(task)

        self._call(at_s, call)

    # What threads do

    def _begin_piece(self, task: Task, former: Load | None) -> None:
        """Take up the load of the piece now going on, and the next one when it ends."""
        if task.paused:
            return
        task.calls += 1  # what the piece before was to do no longer matters
        piece, load = task.piece, task.piece.load
        if piece.until_s < math.inf:
            self._call(piece.until_s, lambda: self._next_piece(task, piece))
        self._settle(self._queues[task.cpu])
        if isinstance(load, Closed):
            self._go_on(task, load, former)
            return
        task.left_s = 0.0 if math.isinf(task.left_s) else max(0.0, task.left_s)
        self._next_arrival(task)
        if task.left_s <= _DONE_S:
            self._sleep(task)

    def _next_piece(self, task: Task, ended: Piece) -> None:
        if task.piece is ended and task.thread.key in self._pieces and not task.paused:
            former, task.piece = task.piece.load, reach(self._pieces[task.thread.key], self._now_s)
            self._begin_piece(task, former)

    def _go_on(self, task: Task, load: Closed, former: Load | None) -> None:
        """Go on with the work or thought of a loop before; what was none begins anywhere in it."""
        if load.duty >= 1.0:
            self._next_work(task)
        elif not isinstance(former, Closed) or former.duty >= 1.0:
            self._sleep(task)
            task.left_s = 0.0
            place = task.thread.source.random()
            self._think(task, place * (load.work_s + load.think_s))
        elif task.left_s > _DONE_S:
            self._wake(task)
        else:
            rest_s = task.awake_at_s - self._now_s
            self._think(task, rest_of_thought_s(rest_s, former, load))

    def _think(self, task: Task, seconds: float) -> None:
        task.awake_at_s = self._now_s + seconds
        self._call_task(task, task.awake_at_s, self._next_work)

    def _next_work(self, task: Task) -> None:
        """Begin a closed loop's next work."""
        load = task.piece.load
        assert isinstance(load, Closed)
        hog = load.duty >= 1.0
        task.left_s = math.inf if hog else load.spread.draw(load.work_s, task.thread.source)
        self._wake(task)

    def _next_arrival(self, task: Task) -> None:
        load = task.piece.load
        if isinstance(load, Closed) or load.rate <= 0:
            return
        gap_s = task.thread.source.expovariate(load.rate / load.work_s)
        self._call_task(task, self._now_s + gap_s, self._arrive)

    def _arrive(self, task: Task) -> None:
        load = task.piece.load
        self._settle(self._queues[task.cpu])
        task.left_s += load.spread.draw(load.work_s, task.thread.source)
        self._next_arrival(task)
        if task.runnable:
            self._schedule_stop(self._queues[task.cpu])
        else:
            self._wake(task)

    def _work_done(self, task: Task) -> None:
        """Sleep until there is more to do."""
        self._sleep(task)
        load = task.piece.load
        if isinstance(load, Closed):
            self._think(task, load.spread.draw(load.think_s, task.thread.source))

    # Who runs

    def _wake(self, task: Task) -> None:
        if task.runnable:
            self._schedule_stop(self._queues[task.cpu])
            return
        if task.throttled or task.paused:
            return
        target = self._place(task)
        self._pay_for_move(task, target)
        task.runnable = True
        task.group.runnable += 1
        self._enter(task, self._queues[target])

    def _enter(self, task: Task, queue: RunQueue) -> None:
        self._settle(queue)
        queue.enter(task, self._now_s)
        if queue.current is None:
            self._run_next(queue)
        else:
            queue.renew_slices()
            self._schedule_stop(queue)

    def _sleep(self, task: Task) -> None:
        """Take a thread off its queue."""
        if not task.runnable:
            return
        queue = self._queues[task.cpu]
        self._settle(queue)
        if queue.current is task:
            queue.stop()
        else:
            queue.leave(task, self._now_s)
        task.runnable = False
        task.group.runnable -= 1
        if queue.current is None:
            self._run_next(queue)

    def _run_next(self, queue: RunQueue) -> None:
        if not queue.waiting:
            self._pull(queue)
        if queue.pick(self._now_s) is not None:
            self._schedule_stop(queue)
        self._sibling_changed(queue)

    def _schedule_stop(self, queue: RunQueue) -> None:
        """Come back when the current thread has done its work, or its slice or quota is over."""
        task = queue.current
        if task is None:
            return
        speed = self._speed(queue, task)
        run_s = task.debt_s + max(task.left_s, 0.0) / speed
        if queue.waiting:
            run_s = min(run_s, (task.deadline_s - task.virtual_s) * task.weight)
        run_s = min(run_s, self._quota_left_s(task))
        queue.calls += 1
        number = queue.calls
        if run_s < math.inf:
            at_s = self._now_s + max(run_s, 0.0) / queue.available

            def call() -> None:
                if queue.calls == number:
                    self._stop(queue)

            self._call(at_s, call)

    def _stop(self, queue: RunQueue) -> None:
        self._settle(queue)
        task = queue.current
        if task is None:
            return
        if task.left_s <= _DONE_S:
            self._work_done(task)
        elif self._quota_left_s(task) <= _DONE_S:
            self._throttle(task)
        elif queue.renew_slices() and queue.waiting:
            queue.put_back(self._now_s)
            self._run_next(queue)
        else:
            self._schedule_stop(queue)

    def _settle(self, queue: RunQueue) -> None:
        task = queue.current
        speed = self._speed(queue, task) if task is not None else 1.0
        queue.settle(self._now_s, speed)

    def _speed(self, queue: RunQueue, task: Task) -> float:
        """Return work per run time: speed of the pCPU, SMT sibling, remote memory."""
        speed = queue.speed
        if any(self._queues[cpu].current for cpu in self._siblings[queue.cpu]):
            speed *= self._kernel.smt_ratio
        node = task.thread.memory_node
        if node is not None and self._pcpus[queue.cpu].node != node:
            speed /= 1.0 + self._kernel.remote_slowdown_ratio
        return speed

    def _sibling_changed(self, queue: RunQueue) -> None:
        """Count what siblings did at their old speed, and go on at the new."""
        for cpu in self._siblings[queue.cpu]:
            self._settle(self._queues[cpu])
            self._schedule_stop(self._queues[cpu])

    # Quota

    def _quota_left_s(self, task: Task) -> float:
        quota = task.thread.quota_ratio
        if quota is None:
            return math.inf
        period = int(self._now_s / QUOTA_PERIOD_S + 1e-9)
        if period != task.quota_period:
            task.quota_period, task.quota_used_s = period, 0.0
        return quota * QUOTA_PERIOD_S - task.quota_used_s

    def _throttle(self, task: Task) -> None:
        """Let a thread wait for its next period; to schedstat it is still waiting."""
        self._sleep(task)
        task.throttled = True
        task.waits_since_s = self._now_s
        next_s = (int(self._now_s / QUOTA_PERIOD_S + 1e-9) + 1) * QUOTA_PERIOD_S
        self._call(next_s, lambda: self._unthrottle(task))

    def _unthrottle(self, task: Task) -> None:
        task.throttled = False
        task.wait_s += self._now_s - task.waits_since_s
        if task.thread.key in self._tasks and task.left_s > _DONE_S:
            self._wake(task)

    # Where they run

    def _place(self, task: Task) -> int:
        """Return where a waking thread goes."""
        last = task.cpu
        if self._is_idle(last):
            return last
        llc = self._pcpus[last].llc
        idle = [
            cpu
            for cpu in self._near[last]
            if cpu in task.affinity and self._pcpus[cpu].llc == llc and self._is_idle(cpu)
        ]
        whole = [cpu for cpu in idle if all(map(self._is_idle, self._siblings[cpu]))]
        return next(iter(whole or idle), last)

    def _is_idle(self, cpu: int) -> bool:
        queue = self._queues[cpu]
        return queue.current is None and not queue.waiting

    def _pull(self, queue: RunQueue) -> None:
        """Take a waiting thread from the longest queue, near ones first."""
        best: Task | None = None
        most = 0
        for cpu in self._near[queue.cpu]:
            waiting = self._queues[cpu].waiting
            if len(waiting) > most:
                movable = [task for task in waiting if queue.cpu in task.affinity]
                if movable:
                    best, most = movable[0], len(waiting)
        if best is not None:
            self._move_waiting(best, queue)

    def _move_waiting(self, task: Task, queue: RunQueue) -> None:
        self._queues[task.cpu].leave(task, self._now_s)
        self._pay_for_move(task, queue.cpu)
        queue.enter(task, self._now_s)

    def _migrate(self, task: Task, target: int) -> None:
        """Move a runnable thread that may not stay where it is."""
        self._sleep(task)
        self._pay_for_move(task, target)
        task.runnable = True
        task.group.runnable += 1
        self._enter(task, self._queues[target])

    def _pay_for_move(self, task: Task, target: int) -> None:
        if target != task.cpu and task.cpu in self._pcpus:
            source = self._pcpus[task.cpu]
            task.debt_s += self._kernel.move_cost_s(source, self._pcpus[target])

    def _schedule_balance(self, queue: RunQueue) -> None:
        """Come back after an interval of its own, so that pCPUs do not balance in step."""
        spread = 1.0 + 0.1 * ((queue.cpu * 0.6180339887) % 1.0)
        self._call(self._now_s + self._kernel.balance_s * spread, lambda: self._balance(queue))

    def _balance(self, queue: RunQueue) -> None:
        if self._queues.get(queue.cpu) is not queue:
            return
        self._schedule_balance(queue)
        loads = [(self._queues[cpu].load, cpu) for cpu in self._near[queue.cpu]]
        own = queue.load
        for load, cpu in sorted(loads, key=lambda pair: -pair[0]):
            if load <= own:
                break
            for task in self._queues[cpu].waiting:
                if queue.cpu in task.affinity and task.weight <= load - own + 1e-9:
                    self._settle(queue)
                    self._settle(self._queues[cpu])
                    self._move_waiting(task, queue)
                    self._after_arrival(queue)
                    return
        if self._is_idle(queue.cpu) and self._siblings[queue.cpu]:
            self._spread_over_cores(queue)

    def _after_arrival(self, queue: RunQueue) -> None:
        if queue.current is None:
            self._run_next(queue)
        else:
            queue.renew_slices()
            self._schedule_stop(queue)

    def _spread_over_cores(self, queue: RunQueue) -> None:
        """From an idle core, take a running thread of a core where two run."""
        if not all(map(self._is_idle, self._siblings[queue.cpu])):
            return
        for cpu in self._near[queue.cpu]:
            task = self._queues[cpu].current
            crowded = any(self._queues[s].current for s in self._siblings[cpu])
            if task is not None and crowded and queue.cpu in task.affinity:
                self._migrate(task, queue.cpu)
                return

    # What is seen

    def counters(self) -> Mapping[VcpuKey, Counters]:
        """Return what schedstat would show now: a wait going on is not yet in it."""
        for task in self._tasks.values():
            if task.run_s + task.wait_s > self._now_s + 1e-6:
                raise ImpossibleStateError(f"{task.thread.key} ran and waited longer than time")
        return {
            key: Counters(int(task.run_s * 1e9), int(task.wait_s * 1e9))
            for key, task in self._tasks.items()
        }

    def work_s(self) -> Mapping[VcpuKey, float]:
        """Return the work done, in seconds of a pCPU of speed 1."""
        return {key: task.work_s for key, task in self._tasks.items()}

    def demand_ratio(self) -> Mapping[VcpuKey, float]:
        """Return what each thread would use of a free pCPU now."""
        return {
            key: 0.0 if task.paused else task.piece.load.demand_ratio
            for key, task in self._tasks.items()
        }

    def busy_ns(self) -> Mapping[int, int]:
        """Return the time each pCPU was busy."""
        now = {cpu: queue.busy_s for cpu, queue in self._queues.items()}
        return {cpu: int(busy_s * 1e9) for cpu, busy_s in (self._idle_busy_s | now).items()}


def _by_distance(pcpu: Pcpu, others: Iterable[Pcpu]) -> list[int]:
    """Return the other CPUs, nearest first."""
    ordered = sorted(
        (p for p in others if p.id != pcpu.id),
        key=lambda p: (p.core != pcpu.core, p.llc != pcpu.llc, p.node != pcpu.node, p.id),
    )
    return [p.id for p in ordered]
