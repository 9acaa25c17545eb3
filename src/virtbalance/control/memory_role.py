"""The memory coordinator's steps: balloon targets are what it owns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from virtbalance.control.journal import Entries, Entry, SizedBalloon, same_run
from virtbalance.control.ownership import ForeignChange, yield_to
from virtbalance.control.policy_role import MAY_HAVE_HAPPENED, PolicyRole
from virtbalance.control.role import GuestFilter, set_anew
from virtbalance.control.settings import MemorySettings
from virtbalance.memory import demand, outside
from virtbalance.memory import guard as safety
from virtbalance.memory.overload import OverloadWatch, watch_overload
from virtbalance.memory.policy import MemoryPolicy
from virtbalance.memory.restore import restore
from virtbalance.memory.settings import DemandSettings, GuardSettings
from virtbalance.model.guest import GuestState, RoleName
from virtbalance.model.memory_estimate import MemoryEstimate
from virtbalance.model.plan import (
    Action,
    CpuPlan,
    Figure,
    MemoryPlan,
    Reason,
    Resize,
    SetStatsPeriod,
    Verdict,
)
from virtbalance.model.reservation import Reservation
from virtbalance.model.snapshot import GuestSample, Scope, Snapshot
from virtbalance.model.tick import Event, Outcome


@dataclass(frozen=True, slots=True)
class MemoryRoleSettings:
    """What the role's pure parts are told."""

    demand: DemandSettings
    guard: GuardSettings
    guests: GuestFilter
    stats_period_s: int
    """Balloon statistics period set where it is off."""

    @classmethod
    def of(cls, settings: MemorySettings) -> "MemoryRoleSettings":
        """Return what of the program's settings concerns the role."""
        guests = GuestFilter(settings.include, settings.exclude)
        return cls(settings.demand, settings.guard, guests, settings.stats_period_s)


class MemoryRole(PolicyRole[MemoryEstimate, str, int]):
    """Fills ``control.role.Role`` for balloons."""

    name = RoleName.MEMORY
    scope = Scope.MEMORY

    def __init__(
        self,
        policy: MemoryPolicy,
        policy_config: Any,
        settings: MemoryRoleSettings,
        reservations: Callable[[], Sequence[Reservation]] = tuple,
    ) -> None:
        """``reservations`` is asked at every look; oldest first."""
        super().__init__(policy, policy_config)
        self._settings = settings
        self._reservations = reservations
        self._demand_state: demand.DemandState | None = None
        self._guard_state: safety.GuardState | None = None
        self._outside_state: outside.OutsideState | None = None
        self._overload = OverloadWatch()

    def look(self, snapshot: Snapshot) -> tuple[Event, ...]:
        """Take one sample in: notice outside resizes, estimate anew."""
        now_s = snapshot.taken_ns / 1e9
        self._forget_gone(snapshot, guest_of=str)
        self._ownership = self._ownership.forgive(set_anew(self._snapshot, snapshot))
        changes, self._outside_state = outside.observe(
            self._outside_state, snapshot, self._targets(), now_s
        )
        for change in changes:
            self._accept(change.uuid, change.seen_kib)
        met = tuple(
            ForeignChange(c.uuid, c.guest_name, c.uuid, c.seen_kib, c.text)
            for c in changes
            if not c.continued
        )
        self._ownership, events = yield_to(self._ownership.expire(now_s), met, now_s)
        snapshot = self._settings.guests.apply(snapshot, self.name)
        self._snapshot = snapshot
        self._estimate, self._demand_state = demand.estimate(
            self._demand_state,
            snapshot,
            self._targets(),
            self.holds,
            self._settings.demand,
            self._reservations(),
        )
        overloaded, self._overload = watch_overload(
            self._overload, self._estimate, now_s, self._settings.guard.migrate_after_s
        )
        return (*events, *overloaded)

    def decide(self, now_s: float) -> MemoryPlan:
        """Ask the policy."""
        return self._seat.ask(self.estimate, now_s, MemoryPlan)

    def hold_plan(self) -> MemoryPlan:
        """Return the plan that changes nothing."""
        return MemoryPlan()

    def guard(self, plan: CpuPlan | MemoryPlan, now_s: float) -> Verdict:
        """Turn desired sizes into safe steps, and let guests report that do not."""
        assert isinstance(plan, MemoryPlan)
        verdict, self._guard_state = safety.guard(
            self._guard_state, self.estimate, plan, self.holds, self._settings.guard, now_s
        )
        return replace(verdict, actions=(*self._reporting(), *verdict.actions))

    def undo(self, actions: Sequence[Action]) -> Entries:
        """Return the original balloon and statistics period of every guest about to change."""
        assert self._snapshot is not None
        guests = {guest.uuid: guest for guest in self._snapshot.guests}
        changed: dict[str, Entry] = {}
        for action in actions:
            match action:
                case Resize():
                    balloon = self._undo_balloon(guests[action.uuid])
                    balloon = replace(balloon, target_kib=action.target_kib)
                case SetStatsPeriod():
                    guest = guests[action.uuid]
                    balloon = self._undo_balloon(guest)
                    balloon = replace(balloon, stats_period_s=action.period_s)
                    if balloon.original_stats_period_s is None:
                        period_s = guest.definition.stats_period_s
                        balloon = replace(balloon, original_stats_period_s=period_s)
                case _:
                    continue
            guest = guests[action.uuid]
            entry = Entry(guest.name, guest.incarnation, balloon=balloon)
            self._undo[guest.uuid] = changed[guest.uuid] = entry
        return changed

    def record(self, outcomes: Sequence[Outcome]) -> None:
        """Remember which targets were set."""
        for outcome in outcomes:
            if isinstance(outcome.action, Resize) and outcome.status in MAY_HAVE_HAPPENED:
                self._ownership = self._ownership.set_by_us(
                    outcome.action.uuid, outcome.action.target_kib, certain=True
                )

    def adopt(self, entries: Entries, snapshot: Snapshot) -> None:
        """Take over the targets of an earlier run, so that they are not seen as outside changes."""
        for guest, entry in same_run(entries, snapshot):
            if entry.balloon:
                self._undo[guest.uuid] = Entry(entry.name, entry.incarnation, balloon=entry.balloon)
                self._ownership = self._ownership.set_by_us(
                    guest.uuid, entry.balloon.target_kib, certain=True
                )

    def putting_back(
        self, entries: Entries, snapshot: Snapshot, *, keep: bool
    ) -> tuple[Action, ...]:
        """Return the original sizes as far as they fit now, and the statistics periods."""
        periods = _original_periods(entries, snapshot)
        if keep:
            return periods
        self.adopt(entries, snapshot)
        self.look(snapshot)
        originals_kib = {
            guest.uuid: entry.balloon.original_kib
            for guest, entry in same_run(entries, snapshot)
            if entry.balloon
        }
        return (*restore(self.estimate, originals_kib, self._settings.guard), *periods)

    def _targets(self) -> Mapping[str, int]:
        return {uuid: values[-1] for uuid, values in self._ownership.ours.items()}

    def _reporting(self) -> tuple[SetStatsPeriod, ...]:
        """Turn statistics on for guests we serve whose balloon does not report."""
        assert self._snapshot is not None
        period_s = self._settings.stats_period_s
        reason = Reason(
            "statistics",
            "the balloon reports nothing; every {period_s} s from now on",
            {"period_s": period_s},
        )
        return tuple(
            SetStatsPeriod(guest.uuid, period_s, reason)
            for guest in self._snapshot.guests
            if guest.state is GuestState.RUNNING
            and guest.definition.balloon
            and guest.definition.stats_period_s == 0
            and self.name not in guest.settings.exclude
            and guest.uuid not in self.holds
        )

    def _undo_balloon(self, guest: GuestSample) -> SizedBalloon:
        known = self._undo.get(guest.uuid)
        if known and known.balloon:
            return known.balloon
        assert guest.memory is not None, "the guard resizes no guest whose memory is unknown"
        return SizedBalloon(guest.memory.actual_kib, guest.memory.actual_kib)

    def _accept(self, uuid: str, seen_kib: int) -> None:
        """Take somebody else's size as target and as new original; it may still be moving."""
        self._ownership = self._ownership.set_by_us(uuid, seen_kib, certain=True)
        entry = self._undo.get(uuid)
        if entry and entry.balloon:
            balloon = replace(entry.balloon, original_kib=seen_kib, target_kib=seen_kib)
            self._undo[uuid] = replace(entry, balloon=balloon)


def _original_periods(entries: Entries, snapshot: Snapshot) -> tuple[SetStatsPeriod, ...]:
    """Return what puts back the periods that are still as we set them."""
    actions = []
    for guest, entry in same_run(entries, snapshot):
        if (balloon := entry.balloon) is None or balloon.original_stats_period_s is None:
            continue
        if guest.definition.stats_period_s == balloon.stats_period_s:
            period_s = balloon.original_stats_period_s
            figures: dict[str, Figure] = {"period_s": period_s}
            reason = Reason("restore", "statistics period {period_s} s again", figures)
            actions.append(SetStatsPeriod(guest.uuid, period_s, reason))
    return tuple(actions)
