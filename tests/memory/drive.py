"""Drives the memory core on a simulated host, tick by tick, with an independent eye on safety.

``Drive`` does what the control loop does, and no more: look, accept outside changes, estimate,
decide, guard, act. ``Watchdog`` reads the simulation's own truth, never the core's books.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from virtbalance.memory.demand import DemandState, estimate
from virtbalance.memory.guard import GuardState, guard
from virtbalance.memory.outside import OutsideChange, OutsideState, observe
from virtbalance.memory.policies.fair import Fair
from virtbalance.memory.policy import MemoryPolicy
from virtbalance.memory.settings import BudgetSettings, Commit, DemandSettings, GuardSettings
from virtbalance.model.hold import Hold
from virtbalance.model.memory_estimate import MemoryEstimate
from virtbalance.model.plan import Resize, Verdict
from virtbalance.model.snapshot import MemorySample, Scope, Snapshot
from virtbalance.model.tick import Status
from virtbalance.simulation.host import SimulatedHost
from virtbalance.simulation.memory import GuestMemory

MIB = 1024
HOLD_S = 60.0
RELEASE_WITHIN_S = 600.0
WATCH_S = 0.5
"""How often it is noted what guests use."""
UNSEEN_PERIODS = 3.0
"""A guest is shrunk on reports up to two periods old, and a report can be one old when it comes."""
STUCK_S = 5.0
UNJUDGED_S = 60.0
"""Speed is judged every 30 s; a balloon that slows down in between is judged by the next 30."""
CRAWL_KIB_S = 1.0 * MIB
TOLERANCE_KIB = 4 * MIB


class UnsafeError(AssertionError):
    """Something that must never happen has happened."""


@dataclass
class Followed:
    """How one balloon has done what it was asked."""

    away: list[tuple[float, int]] = field(default_factory=list)
    """Its sizes lately, while it has not been where it should be."""
    from_kib: int = 0
    """Its size when that began; where it should be: its size."""
    seen_kib: int = 0
    """Its size at the look before."""
    deaf_s: float | None = None
    """Since when it has not followed; it has not completed a move since."""


@dataclass
class Watchdog:
    """Checks every tick against what is really so."""

    host: SimulatedHost
    period_s: float = 1.0
    budget_max_kib: int | None = None
    minimum_kib: Mapping[str, int] = field(default_factory=dict)
    squeezing: bool = False
    """Guests with swap may be squeezed in overload."""
    liars: frozenset[str] = frozenset()
    """Guests whose reports are false: they may lose what they claim to have."""
    commit: Commit = Commit.REPORTED
    _budgets_kib: list[int] = field(default_factory=list)
    _used_kib: dict[str, list[tuple[float, int]]] = field(default_factory=dict)
    _followed: dict[str, Followed] = field(default_factory=dict)

    def check(
        self, snapshot: Snapshot, targets: Mapping[str, int], commands: Sequence[Resize]
    ) -> None:
        """Raise ``UnsafeError`` if a command is not safe."""
        samples = {g.uuid: g.memory for g in snapshot.guests if g.memory is not None}
        periods = {g.uuid: g.definition.stats_period_s for g in snapshot.guests}
        self.watch()
        self._forget_used(periods)
        self._note_followed(samples, targets)
        before = {u: max(s.actual_kib, targets.get(u, s.actual_kib)) for u, s in samples.items()}
        after = dict(before)
        for command in commands:
            sample = samples[command.uuid]
            self._check_one(command, sample, targets.get(command.uuid, sample.actual_kib))
            after[command.uuid] = max(sample.actual_kib, command.target_kib)
        budget_kib = self._budget_kib()
        actual = {u: s.actual_kib for u, s in samples.items()}
        committed_kib, then_kib = self._sum_kib(before, actual), self._sum_kib(after, actual)
        if then_kib > max(budget_kib, committed_kib):
            raise UnsafeError(f"{then_kib} KiB committed of {budget_kib}")
        grown = [u for u in after if after[u] > before[u]]
        if grown and committed_kib > budget_kib:
            raise UnsafeError(f"{grown} grow while more is committed than there is")

    def _sum_kib(self, sizes: Mapping[str, int], actual: Mapping[str, int]) -> int:
        """Return what is committed, less what of deaf guests' memory may be lent.

        That is what they have and have not touched, and no more than guests with swap could return.
        One of these that begins to crawl is counted on until its speed is judged; nobody can know.
        """
        if self.commit is not Commit.REPORTED:
            return sum(sizes.values())
        truth = self.host.truth().memory
        idle_kib = returnable_kib = 0
        for uuid, size_kib in sizes.items():
            memory = self.host.guests[uuid].described.memory
            deaf_s = self._followed[uuid].deaf_s
            unused_kib = 0
            if deaf_s is not None:
                seen_kib = 1.1 * (truth[uuid].touched_kib + 64 * MIB) + 512 * MIB
                unused_kib = max(0, actual[uuid] - round(seen_kib))
            judged = deaf_s is not None and self.host.now_s - deaf_s > UNJUDGED_S + self.period_s
            if memory is not None and memory.swap_kib and not (unused_kib or judged):
                returnable_kib += max(0, size_kib - self.minimum_kib.get(uuid, 0))
            idle_kib += unused_kib
        return sum(sizes.values()) - min(idle_kib, returnable_kib)

    def _check_one(self, command: Resize, sample: MemorySample, target_kib: int) -> None:
        truth = self.host.truth().memory[command.uuid]
        usable_then_kib = truth.usable_kib + self._grown_kib(command.uuid)
        name = self.host.guests[command.uuid].described.name
        if command.target_kib > sample.maximum_kib:
            raise UnsafeError(f"{name} above its maximum")
        if command.target_kib >= target_kib or command.target_kib == sample.actual_kib:
            return
        if command.target_kib < self.minimum_kib.get(command.uuid, 0):
            raise UnsafeError(f"{name} taken below its minimum: {command}")
        taken_kib = sample.actual_kib - command.target_kib
        if taken_kib > usable_then_kib + 1 and command.uuid not in self.liars:
            raise UnsafeError(f"{name} has {truth.usable_kib} usable, loses {taken_kib}: {command}")
        usable_kib = sample.usable_kib or 0
        block_kib = max(100 * MIB, 0.05 * sample.maximum_kib)
        most_kib = max(0.5 * usable_kib, min(0.9 * usable_kib, block_kib))
        squeezed = self.squeezing and bool(sample.swap_out_kib)
        if squeezed and usable_kib <= max(100 * MIB, 0.08 * sample.actual_kib):
            # A guest with swap may be made slower in overload, by little at a time.
            most_kib = max(most_kib, min(usable_kib, max(32 * MIB, 0.02 * sample.actual_kib + 1)))
        if taken_kib > most_kib:
            raise UnsafeError(f"{name} loses {taken_kib} of {usable_kib} at once: {command}")
        if taken_kib > 0 and usable_kib <= 100 * MIB and not squeezed:
            raise UnsafeError(f"{name} has only {usable_kib} usable and loses {taken_kib}")

    def watch(self) -> None:
        """Note what every guest uses now; it may report a dip between two ticks."""
        for uuid, truth in self.host.truth().memory.items():
            self._used_kib.setdefault(uuid, []).append((self.host.now_s, truth.used_kib))

    def _forget_used(self, periods_s: Mapping[str, float]) -> None:
        for uuid, seen in self._used_kib.items():
            unseen_s = UNSEEN_PERIODS * max(self.period_s, periods_s.get(uuid, 0.0))
            since_s = self.host.now_s - unseen_s
            self._used_kib[uuid] = [(at_s, kib) for at_s, kib in seen if at_s >= since_s]

    def _grown_kib(self, uuid: str) -> int:
        """Return what a guest may have taken since it last reported; nobody can know of it."""
        used = [kib for _, kib in self._used_kib[uuid]]
        return used[-1] - min(used)

    def _note_followed(
        self, samples: Mapping[str, MemorySample], targets: Mapping[str, int]
    ) -> None:
        now_s = self.host.now_s
        for uuid, sample in samples.items():
            known = self._followed.setdefault(uuid, Followed())
            target_kib = targets.get(uuid, sample.actual_kib)
            tolerance_kib = max(TOLERANCE_KIB, 0.005 * sample.maximum_kib)
            moved_kib = abs(sample.actual_kib - known.from_kib)
            if abs(target_kib - sample.actual_kib) <= tolerance_kib:
                # A target taken back to where a balloon was is no move of the balloon.
                if target_kib != known.seen_kib and moved_kib >= MIB:
                    known.deaf_s = None
                known.away, known.from_kib = [], sample.actual_kib
            else:
                known.away = _lately([*known.away, (now_s, sample.actual_kib)])
                if known.deaf_s is None and _crawls(known.away):
                    known.deaf_s = now_s
            known.seen_kib = sample.actual_kib

    def _budget_kib(self) -> int:
        """Return what the guests may have; the core may be two looks behind, not more."""
        machine = self.host.machine
        total_kib = machine.memory_kib
        least = 256 if total_kib < 8192 * MIB else 512
        reserve_kib = max(least * MIB, round(0.05 * total_kib))
        other_kib = machine.other_memory.kib(self.host.now_s)
        budget_kib = total_kib - other_kib - reserve_kib
        if self.budget_max_kib is not None:
            budget_kib = min(budget_kib, self.budget_max_kib)
        self._budgets_kib = [*self._budgets_kib[-2:], round(budget_kib)]
        return max(self._budgets_kib)


def _lately(sizes: list[tuple[float, int]]) -> list[tuple[float, int]]:
    """Leave out what is older than needed to tell a speed."""
    last_s, _ = sizes[-1]
    old = [at for at in sizes if last_s - at[0] >= STUCK_S]
    return sizes[max(0, len(old) - 1) :]


def _crawls(sizes: list[tuple[float, int]]) -> bool:
    (first_s, first_kib), (last_s, last_kib) = sizes[0], sizes[-1]
    passed_s = last_s - first_s
    return passed_s >= STUCK_S and abs(last_kib - first_kib) < CRAWL_KIB_S * passed_s


@dataclass
class Look:
    """What was seen and done in one tick."""

    now_s: float
    estimate: MemoryEstimate
    verdict: Verdict
    changes: tuple[OutsideChange, ...]
    actual_mib: Mapping[str, float]
    """By guest name."""
    usable_mib: Mapping[str, float]
    available_mib: float
    """On the host."""


@dataclass
class Drive:
    """One host under the memory coordinator."""

    host: SimulatedHost
    period_s: float = 1.0
    demand: DemandSettings = field(default_factory=DemandSettings)
    guard: GuardSettings = field(default_factory=GuardSettings)
    policy: MemoryPolicy = field(default_factory=Fair)
    config: Any = field(default_factory=Fair.Config)
    squeezing: bool = False
    liars: frozenset[str] = frozenset()
    targets: dict[str, int] = field(default_factory=dict)
    holds: dict[str, Hold] = field(default_factory=dict)
    looks: list[Look] = field(default_factory=list)
    _conflicts_s: dict[str, float] = field(default_factory=dict)
    _demand_state: DemandState | None = None
    _guard_state: GuardState | None = None
    _outside_state: OutsideState | None = None
    _policy_state: Any = None
    _incarnations: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        minima = {
            uuid: live.described.settings.minimum_kib or self._default_minimum_kib(live.memory)
            for uuid, live in self.host.guests.items()
        }
        budget_max_kib = self.demand.budget.budget_max_kib
        self._watchdog = Watchdog(
            self.host,
            self.period_s,
            budget_max_kib,
            minima,
            self.squeezing,
            self.liars,
            self.demand.budget.commit,
        )

    def run(self, seconds: float) -> "Drive":
        """Tick until so many seconds have passed."""
        end_s = self.host.now_s + seconds
        while self.host.now_s < end_s - 1e-9:
            self.tick()
            self._wait()
        return self

    def _wait(self) -> None:
        """Let a period pass, under the watchdog's eyes."""
        next_s = self.host.now_s + self.period_s
        while (left_s := next_s - self.host.now_s) > 1e-9:
            self.host.advance(min(left_s, WATCH_S))
            self._watchdog.watch()

    def run_until(self, done: Callable[[], bool], at_most_s: float) -> float:
        """Tick until something is so; return when that was, since the start."""
        end_s = self.host.now_s + at_most_s
        while not done():
            if self.host.now_s >= end_s:
                raise AssertionError(f"not within {at_most_s} s")
            self.run(self.period_s)
        return self.host.now_s

    def tick(self) -> Look:
        """Do one turn of the loop."""
        snapshot = self._resident(self.host.sample(Scope.MEMORY, 1.0))
        self._forget_gone(snapshot)
        now_s = snapshot.taken_ns / 1e9
        changes, self._outside_state = observe(self._outside_state, snapshot, self.targets, now_s)
        self._yield_to(changes, now_s)
        what, self._demand_state = estimate(
            self._demand_state, snapshot, self.targets, self.holds, self.demand
        )
        plan, self._policy_state = self.policy.decide(self._policy_state, what, self.config, now_s)
        verdict, self._guard_state = guard(
            self._guard_state, what, plan, self.holds, self.guard, now_s
        )
        commands = [action for action in verdict.actions if isinstance(action, Resize)]
        self._watchdog.check(snapshot, self.targets, commands)
        for outcome in self.host.apply(commands, 1.0):
            if outcome.status in (Status.DONE, Status.LATE):
                assert isinstance(outcome.action, Resize)
                self.targets[outcome.action.uuid] = outcome.action.target_kib
        self.looks.append(self._look(what, verdict, changes, snapshot))
        return self.looks[-1]

    def _resident(self, snapshot: Snapshot) -> Snapshot:
        """Leave out of resident sizes what the host has swapped out, as a real host does."""
        truth = self.host.truth()
        touched_kib = sum(guest.touched_kib for guest in truth.memory.values())
        if truth.host_excess_kib == 0 or touched_kib == 0:
            return snapshot
        there = 1 - min(1.0, truth.host_excess_kib / touched_kib)
        guests = tuple(
            guest
            if guest.memory is None or guest.memory.rss_kib is None
            else replace(
                guest, memory=guest.memory._replace(rss_kib=round(guest.memory.rss_kib * there))
            )
            for guest in snapshot.guests
        )
        return replace(snapshot, guests=guests)

    def _forget_gone(self, snapshot: Snapshot) -> None:
        here = {guest.uuid: guest.incarnation for guest in snapshot.guests}
        gone = {u for u, inc in self._incarnations.items() if here.get(u) != inc}
        self._incarnations = here
        for uuid in gone:
            self.targets.pop(uuid, None)
            self.holds.pop(uuid, None)

    def _yield_to(self, changes: Sequence[OutsideChange], now_s: float) -> None:
        self.holds = {u: h for u, h in self.holds.items() if h.until_s > now_s}
        for change in changes:
            self.targets[change.uuid] = change.seen_kib
            if not change.continued:
                last_s = self._conflicts_s.get(change.uuid, -math.inf)
                for_good = now_s - last_s <= RELEASE_WITHIN_S
                until_s = math.inf if for_good else now_s + HOLD_S
                self.holds[change.uuid] = Hold(until_s, "changed by somebody else")
                self._conflicts_s[change.uuid] = now_s

    def _look(
        self,
        what: MemoryEstimate,
        verdict: Verdict,
        changes: tuple[OutsideChange, ...],
        snapshot: Snapshot,
    ) -> Look:
        truths = {
            self.host.guests[uuid].described.name: truth
            for uuid, truth in self.host.truth().memory.items()
        }
        assert snapshot.memory is not None
        return Look(
            self.host.now_s,
            what,
            verdict,
            changes,
            {name: truth.actual_kib / MIB for name, truth in truths.items()},
            {name: truth.usable_kib / MIB for name, truth in truths.items()},
            snapshot.memory.available_kib / MIB,
        )

    def _default_minimum_kib(self, memory: GuestMemory | None) -> int:
        need = self.demand.need
        if memory is None:
            return 0
        maximum_kib = memory.maximum_kib
        return min(maximum_kib, max(need.minimum_kib, round(need.minimum_ratio * maximum_kib)))


def with_budget_max(mib: int) -> DemandSettings:
    """Return default settings with a limit for all guests together."""
    return DemandSettings(budget=BudgetSettings(budget_max_kib=mib * MIB))
