"""The tick: sense, estimate, decide, guard, act; the same on a live, simulated or recorded host.

Ticks are due at fixed monotonic times, so they do not drift; one that could not start in time is
skipped, never queued. A tick takes several looks at the host where its period allows, and decides
at the last. Before the first change to a guest, how to undo it is in the journal. A lost connection
is retried with growing pauses, and nothing is changed meanwhile.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from virtbalance.control.clock import Clock
from virtbalance.control.deadline import Decider, OverrunError
from virtbalance.control.hypervisor import Hypervisor
from virtbalance.control.journal import JournalError, UndoStore
from virtbalance.control.observers import Audience
from virtbalance.control.policies import describe_failure
from virtbalance.control.recovery import put_back
from virtbalance.control.role import Role
from virtbalance.model.errors import HypervisorLostError
from virtbalance.model.plan import Action, CpuPlan, MemoryPlan
from virtbalance.model.snapshot import Snapshot
from virtbalance.model.tick import Event, Outcome, Status, Tick

_BACK_OFF_S = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """How the loop runs. All times in seconds."""

    period_s: float
    looks: int
    """Samples a tick, evenly spaced, the last one at the tick itself."""
    warm_up_looks: int
    """Samples before the first period begins."""
    warm_up_s: float
    """Time between these."""
    sense_deadline_s: float
    decide_limit_s: float
    act_deadline_s: float
    restore_on_exit: bool
    ticks: int | None = None
    """End after so many; ``None``: until stopped."""


class Loop:
    """One role's loop on one host. Without a journal nothing is changed: a dry run."""

    def __init__(
        self,
        hypervisor: Hypervisor,
        role: Role,
        settings: LoopSettings,
        *,
        clock: Clock,
        decider: Decider,
        journal: UndoStore | None,
        observers: Sequence[Audience] = (),
    ) -> None:
        self._hypervisor = hypervisor
        self._role = role
        self._settings = settings
        self._clock = clock
        self._decider = decider
        self._journal = journal
        self._observers = observers
        self._stop = threading.Event()
        self._pending: list[Event] = []
        self._known_facts: frozenset[str] = frozenset()
        self._number = 0
        self._sense_started_ns = 0

    def stop(self) -> None:
        """Let ``run`` end after what it is doing; callable from anywhere."""
        self._stop.set()

    def run(self) -> bool:
        """Work until stopped; return whether everything to be put back was.

        Raises ``JournalError`` if what an earlier run left can't be read.
        """
        self._begin()
        try:
            self._work()
        finally:
            complete = self._end()
        return complete

    def _work(self) -> None:
        self._warm_up()
        period_ns = round(self._settings.period_s * 1e9)
        due_ns = self._clock.now_ns() + period_ns
        while not self._stop.is_set():
            if self._turn(due_ns) and self._number == self._settings.ticks:
                break
            due_ns = self._next_due(due_ns + period_ns, period_ns)

    # One turn

    def _turn(self, due_ns: int) -> bool:
        """Look, and tick when due; return whether there was a tick."""
        try:
            snapshot = self._look_until(due_ns)
            if snapshot is None:
                return False
            self._tick(snapshot)
        except HypervisorLostError as error:
            self._reconnect(error)
            return False
        return True

    def _look_until(self, due_ns: int) -> Snapshot | None:
        """Take the looks that lead up to a tick; ``None`` when stopped before it."""
        spacing_ns = round(self._settings.period_s * 1e9 / self._settings.looks)
        snapshot = None
        for before_due in reversed(range(self._settings.looks)):
            at_ns = due_ns - before_due * spacing_ns
            if before_due and self._clock.now_ns() > at_ns + spacing_ns // 2:
                continue  # too late for this one: it would crowd the next
            self._clock.sleep_until(at_ns, self._stop)
            if self._stop.is_set():
                return None
            self._sense_started_ns = self._clock.now_ns()
            snapshot = self._look()
        return snapshot

    def _look(self) -> Snapshot:
        snapshot = self._sample()
        self._pending += self._hypervisor.events()
        self._pending += self._role.look(snapshot)
        self._tell_new_facts(snapshot)
        return snapshot

    def _tick(self, snapshot: Snapshot) -> None:
        now_s = snapshot.taken_ns / 1e9
        sensed_ns = self._clock.now_ns()
        plan = self._plan(now_s)
        verdict = self._role.guard(plan, now_s)
        decided_ns = self._clock.now_ns()
        outcomes = self._act(verdict.actions)
        self._number += 1
        for observer in self._observers:
            self._pending += observer.troubles()
        tick = Tick(
            role=self._role.name,
            policy=self._role.policy_name,
            number=self._number,
            period_s=self._settings.period_s,
            snapshot=snapshot,
            estimate=self._role.estimate,
            plan=plan,
            verdict=verdict,
            outcomes=outcomes,
            events=tuple(self._pending),
            holds=dict(self._role.holds),
            sense_ns=sensed_ns - self._sense_started_ns,
            decide_ns=decided_ns - sensed_ns,
            act_ns=self._clock.now_ns() - decided_ns,
        )
        self._pending.clear()
        for observer in self._observers:
            observer.put(tick)

    def _plan(self, now_s: float) -> CpuPlan | MemoryPlan:
        """Ask the policy; where it fails or takes too long, hold and count it."""
        limit_s = self._settings.decide_limit_s
        try:
            plan = self._decider.call(lambda: self._role.decide(now_s), limit_s)
        except OverrunError as error:
            self._pending.append(
                Event("policy-overrun", f"policy {self._role.policy_name}: {error}; holding")
            )
        except (Exception, SystemExit) as error:
            text = f"policy {self._role.policy_name}: {describe_failure(error)}; holding"
            self._pending.append(Event("policy-failed", text))
        else:
            return plan
        return self._role.hold_plan()

    def _act(self, actions: tuple[Action, ...]) -> tuple[Outcome, ...]:
        if not actions:
            return ()
        if self._journal is None:
            return tuple(Outcome(action, Status.PLANNED) for action in actions)
        try:
            self._journal.update(self._role.name, self._role.undo(actions))
        except JournalError as error:
            self._pending.append(Event("journal-failed", f"{error}; nothing is changed"))
            return tuple(Outcome(action, Status.REFUSED, "no journal") for action in actions)
        outcomes = self._hypervisor.apply(actions, self._settings.act_deadline_s)
        self._role.record(outcomes)
        return outcomes

    def _next_due(self, due_ns: int, period_ns: int) -> int:
        late_ns = self._clock.now_ns() - due_ns
        if late_ns < 0:
            return due_ns
        missed = late_ns // period_ns + 1
        ticks = "tick" if missed == 1 else "ticks"
        text = f"{missed} {ticks} skipped: the last one took too long"
        self._pending.append(Event("overrun", text, figures={"missed": missed}))
        return due_ns + missed * period_ns

    # Begin and end

    def _begin(self) -> None:
        """Put back what a crashed run left, or take it over where changes are to be kept."""
        if self._journal is None:
            return
        if self._settings.restore_on_exit:
            self._put_back(self._journal)
        else:
            entries = self._journal.entries()
            self._role.adopt(entries, self._sample())

    def _warm_up(self) -> None:
        for _ in range(self._settings.warm_up_looks):
            if self._stop.is_set():
                return
            try:
                self._look()
            except HypervisorLostError as error:
                self._reconnect(error)
            next_ns = self._clock.now_ns() + round(self._settings.warm_up_s * 1e9)
            self._clock.sleep_until(next_ns, self._stop)

    def _end(self) -> bool:
        """Put back what is not to be kept; return whether all of it was."""
        if self._journal is None:
            return True
        try:
            return self._put_back(self._journal)
        except (HypervisorLostError, JournalError) as error:
            text = f"guests were not put back ({error}); 'virt-balance restore' will do it"
            self._notice(Event("not-restored", text))
            return False

    def _put_back(self, journal: UndoStore) -> bool:
        recovery = put_back(
            self._hypervisor,
            self._role,
            journal,
            keep=not self._settings.restore_on_exit,
            deadline_s=self._settings.act_deadline_s,
        )
        for event in recovery.events:
            self._notice(event)
        return recovery.complete

    # Trouble

    def _reconnect(self, error: HypervisorLostError) -> None:
        """Try again with growing pauses until connected or stopped."""
        self._notice(
            Event("connection-lost", f"{error}; trying again, nothing is changed meanwhile")
        )
        attempt = 0
        while not self._stop.is_set():
            pause_s = _BACK_OFF_S[min(attempt, len(_BACK_OFF_S) - 1)]
            self._clock.sleep_until(self._clock.now_ns() + round(pause_s * 1e9), self._stop)
            attempt += 1
            try:
                self._hypervisor.reconnect()
            except HypervisorLostError:
                continue
            self._notice(Event("reconnected", f"connected again after {attempt} attempts"))
            return

    def _sample(self) -> Snapshot:
        return self._hypervisor.sample(self._role.scope, self._settings.sense_deadline_s)

    def _tell_new_facts(self, snapshot: Snapshot) -> None:
        for fact in snapshot.facts:
            if fact.text not in self._known_facts:
                self._notice(Event(f"host-{fact.kind}", fact.text))
        self._known_facts |= {fact.text for fact in snapshot.facts}

    def _notice(self, event: Event) -> None:
        for observer in self._observers:
            observer.put(event)
