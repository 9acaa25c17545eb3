"""One pCPU's run queue: who runs next, by virtual time.

The rule is that of Linux's EEVDF scheduler. A thread's virtual time is its run time divided by its
weight; the queue's is the weighted mean V of all that are runnable. A thread may run if it is not
ahead of V, and among these the one with the earliest deadline (virtual time at the start of its
slice + slice / weight) runs, for the whole slice: a waking thread does not break it off. What a
thread was behind or ahead of V it keeps over a sleep and a move.
"""

from dataclasses import dataclass, field

from virtbalance.simulation.cpu_model import Thread
from virtbalance.simulation.workload import Piece


@dataclass(slots=True, eq=False)
class Group:
    """One guest's threads: together they weigh what the guest's shares say."""

    runnable: int = 0


@dataclass(slots=True, eq=False)
class Task:
    """One thread as the kernel sees it."""

    thread: Thread
    group: Group
    affinity: frozenset[int]
    piece: Piece
    cpu: int
    """Where it runs, waits, or ran last."""
    left_s: float = 0.0
    """Work to be done before it sleeps, at speed 1; infinite for a hog."""
    awake_at_s: float = 0.0
    """When a thinking loop works again."""
    debt_s: float = 0.0
    """Run time to be lost to cold caches before work goes on."""
    runnable: bool = False
    paused: bool = False
    throttled: bool = False
    virtual_s: float = 0.0
    deadline_s: float = 0.0
    behind_s: float = 0.0
    """Virtual time it was behind V when it left a queue."""
    waits_since_s: float = 0.0
    run_s: float = 0.0
    wait_s: float = 0.0
    work_s: float = 0.0
    quota_used_s: float = 0.0
    quota_period: int = 0
    calls: int = 0
    """Counts its timers, so that an outdated one is known."""

    @property
    def weight(self) -> float:
        """Its part of its group's shares."""
        return self.thread.shares / max(1, self.group.runnable)


@dataclass(slots=True, eq=False)
class RunQueue:
    """The threads of one pCPU."""

    cpu: int
    slice_s: float
    speed: float
    available: float
    current: Task | None = None
    waiting: list[Task] = field(default_factory=list)
    settled_s: float = 0.0
    """Time up to which the current thread's run time is counted."""
    busy_s: float = 0.0
    calls: int = 0

    @property
    def virtual_s(self) -> float:
        """V: the weighted mean of the virtual times of all that are runnable here."""
        tasks = [*self.waiting, self.current] if self.current else self.waiting
        if not tasks:
            return 0.0
        weights = [task.weight for task in tasks]
        total = sum(w * task.virtual_s for w, task in zip(weights, tasks, strict=True))
        return total / sum(weights)

    @property
    def load(self) -> float:
        """Weight of all that are runnable here."""
        running = self.current.weight if self.current else 0.0
        return running + sum(task.weight for task in self.waiting)

    def enter(self, task: Task, now_s: float) -> None:
        """Let a thread wait here, as far behind V as it was when it left."""
        limit_s = self.slice_s / task.weight
        behind_s = min(max(task.behind_s, -limit_s), limit_s)
        task.virtual_s = self.virtual_s - behind_s
        task.deadline_s = task.virtual_s + self.slice_s / task.weight
        task.cpu = self.cpu
        task.waits_since_s = now_s
        self.waiting.append(task)

    def leave(self, task: Task, now_s: float) -> None:
        """Take a waiting thread out; its wait is credited now, as dequeuing does."""
        task.behind_s = self.virtual_s - task.virtual_s
        self.waiting.remove(task)
        task.wait_s += now_s - task.waits_since_s

    def stop(self) -> Task:
        """Take the current thread out."""
        task = self.current
        assert task is not None
        task.behind_s = self.virtual_s - task.virtual_s
        self.current = None
        return task

    def put_back(self, now_s: float) -> None:
        """Let the current thread wait for its next slice."""
        task = self.current
        assert task is not None
        self.current = None
        task.waits_since_s = now_s
        self.waiting.append(task)

    def pick(self, now_s: float) -> Task | None:
        """Let the next thread run; its wait is credited now and not before."""
        if not self.waiting:
            return None
        v = self.virtual_s + 1e-12
        may_run = [task for task in self.waiting if task.virtual_s <= v] or self.waiting
        task = min(may_run, key=lambda task: (task.deadline_s, task.thread.key))
        self.waiting.remove(task)
        task.wait_s += now_s - task.waits_since_s
        self.current = task
        self.settled_s = now_s
        return task

    def settle(self, now_s: float, speed: float) -> None:
        """Count the current thread's run time up to now, at this speed."""
        task, passed_s = self.current, now_s - self.settled_s
        self.settled_s = now_s
        if task is None or passed_s <= 0:
            return
        ran_s = passed_s * self.available
        task.run_s += ran_s
        task.wait_s += passed_s - ran_s
        task.quota_used_s += ran_s
        task.virtual_s += ran_s / task.weight
        self.busy_s += ran_s
        lost_s = min(task.debt_s, ran_s)
        task.debt_s -= lost_s
        done_s = (ran_s - lost_s) * speed
        task.left_s -= done_s
        task.work_s += done_s

    def renew_slices(self) -> bool:
        """Give the current thread its next slice if this one is over; return whether it was."""
        task = self.current
        assert task is not None
        if task.virtual_s < task.deadline_s - 1e-12:
            return False
        length_s = self.slice_s / task.weight
        ended = 1 + int((task.virtual_s - task.deadline_s) / length_s)
        task.deadline_s += ended * length_s
        return True
