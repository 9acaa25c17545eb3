"""One turn of the loop, whole: what was seen, understood, wanted, allowed, done, and noticed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from virtbalance.model.cpu_estimate import CpuEstimate
from virtbalance.model.guest import RoleName
from virtbalance.model.hold import Hold
from virtbalance.model.memory_estimate import MemoryEstimate
from virtbalance.model.plan import Action, CpuPlan, Figure, MemoryPlan, Verdict
from virtbalance.model.snapshot import Snapshot


class Status(StrEnum):
    """How an action ended."""

    DONE = "done"
    PLANNED = "planned"
    """Dry run: not carried out."""
    GONE = "gone"
    """The guest vanished in between; nothing is wrong."""
    REFUSED = "refused"
    """The hypervisor said no."""
    DIFFERENT = "different"
    """It said yes, but reading back showed another value."""
    LATE = "late"
    """No answer by the deadline; it may still happen."""
    BUSY = "busy"
    """An earlier call for the same guest has not answered yet; nothing was sent."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """An action and how it ended."""

    action: Action
    status: Status
    text: str = ""
    """What the hypervisor said, empty when all is well."""
    took_ns: int = 0


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened besides the plan: a guest came or went, a policy failed, a tick late.

    ``kind`` is a stable word (``guest-started``, ``policy-failed``, ``overrun``, ...) under which
    events are counted; ``text`` is for people.
    """

    kind: str
    text: str
    uuid: str | None = None
    figures: Mapping[str, Figure] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tick:
    """The immutable record handed to observers."""

    role: RoleName
    policy: str
    number: int
    """Counts from 1."""
    period_s: float
    snapshot: Snapshot
    estimate: CpuEstimate | MemoryEstimate
    plan: CpuPlan | MemoryPlan
    verdict: Verdict
    outcomes: tuple[Outcome, ...]
    events: tuple[Event, ...]
    holds: Mapping[str, Hold] = field(default_factory=dict)
    """By guest UUID."""
    sense_ns: int = 0
    decide_ns: int = 0
    act_ns: int = 0
