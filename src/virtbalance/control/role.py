"""What the loop asks of a role: the steps of a tick that differ between vCPUs and memory.

The functions behind a role are pure; the role keeps their states between ticks, so that the loop
itself knows neither what a vCPU nor what a balloon is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Protocol

from virtbalance.control.journal import Entries
from virtbalance.model.cpu_estimate import CpuEstimate
from virtbalance.model.guest import RoleName
from virtbalance.model.hold import Hold
from virtbalance.model.memory_estimate import MemoryEstimate
from virtbalance.model.plan import Action, CpuPlan, MemoryPlan, Verdict
from virtbalance.model.snapshot import GuestSample, Scope, Snapshot
from virtbalance.model.tick import Event, Outcome


class Role(Protocol):
    """One of the two programs, as the loop sees it. Times are monotonic seconds."""

    @property
    def name(self) -> RoleName:
        """Which of the two."""

    @property
    def scope(self) -> Scope:
        """What its samples must contain."""

    @property
    def policy_name(self) -> str:
        """The policy that decides."""

    @property
    def estimate(self) -> CpuEstimate | MemoryEstimate:
        """The latest estimate; there is one after the first ``look``."""

    @property
    def holds(self) -> Mapping[str, Hold]:
        """Guests left alone because somebody else changed them."""

    def look(self, snapshot: Snapshot) -> tuple[Event, ...]:
        """Take one sample in: notice foreign changes, estimate anew."""

    def decide(self, now_s: float) -> CpuPlan | MemoryPlan:
        """Ask the policy. May raise or return anything: it may be a user's."""

    def hold_plan(self) -> CpuPlan | MemoryPlan:
        """Return the plan that changes nothing."""

    def guard(self, plan: CpuPlan | MemoryPlan, now_s: float) -> Verdict:
        """Clamp, refuse and order; never raises, whatever the plan contains."""

    def undo(self, actions: Sequence[Action]) -> Entries:
        """Return what to write down before these actions: how to put back what they change."""

    def record(self, outcomes: Sequence[Outcome]) -> None:
        """Remember what was set."""

    def adopt(self, entries: Entries, snapshot: Snapshot) -> None:
        """Take over what an earlier run has set, as if this one had."""

    def putting_back(
        self, entries: Entries, snapshot: Snapshot, *, keep: bool
    ) -> tuple[Action, ...]:
        """Return what puts guests back as they were, as far as that is ours to do.

        ``keep``: only what is put back even when changes are kept.
        """


@dataclass(frozen=True, slots=True)
class GuestFilter:
    """Which guests a role serves, by name pattern (``fnmatch``); others only count as load."""

    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()

    def apply(self, snapshot: Snapshot, role: RoleName) -> Snapshot:
        """Return the snapshot with guests that are not served marked as excluded."""
        if "*" in self.include and not self.exclude:
            return snapshot
        return replace(
            snapshot,
            guests=tuple(
                guest if self._serves(guest.name) else _excluded(guest, role)
                for guest in snapshot.guests
            ),
        )

    def _serves(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self.include) and not any(
            fnmatchcase(name, pattern) for pattern in self.exclude
        )


def _excluded(guest: GuestSample, role: RoleName) -> GuestSample:
    return replace(guest, settings=replace(guest.settings, exclude=guest.settings.exclude | {role}))


def set_anew(former: Snapshot | None, latter: Snapshot) -> tuple[str, ...]:
    """Return the guests whose owner has set something between two snapshots."""
    if former is None:
        return ()
    revisions = {guest.uuid: guest.settings.revision for guest in former.guests}
    return tuple(
        guest.uuid
        for guest in latter.guests
        if revisions.get(guest.uuid, guest.settings.revision) != guest.settings.revision
    )
