"""What is to be done, as data: wishes of a policy, actions of the guard, each with its reason.

A CPU policy answers with pins, a memory policy with desired sizes. The guard turns either into
actions, the only things the hypervisor is ever asked to do.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from virtbalance.model.guest import VcpuKey

Figure = float | int | str | None


@dataclass(frozen=True, slots=True)
class Reason:
    """Why: a rule by name, its figures, and the sentence that puts them in words.

    ``template`` is a ``str.format`` template over ``figures``. It is rendered once at
    construction, so that a template that does not fit its figures fails in the policy that wrote
    it (``KeyError``, ``ValueError``), not later in an observer.
    """

    rule: str
    template: str
    figures: Mapping[str, Figure] = field(default_factory=dict)

    def __post_init__(self) -> None:
        str(self)

    def __str__(self) -> str:
        return self.template.format_map(self.figures)


@dataclass(frozen=True, slots=True)
class Pin:
    """Let one vCPU run on these CPUs only."""

    vcpu: VcpuKey
    cpus: frozenset[int]
    reason: Reason


@dataclass(frozen=True, slots=True)
class DesiredSize:
    """The size one guest should have in the end; steps and order are the guard's."""

    uuid: str
    size_kib: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class Resize:
    """Set one guest's balloon target."""

    uuid: str
    target_kib: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class SetStatsPeriod:
    """Let one guest's balloon report every so many seconds (0: off)."""

    uuid: str
    period_s: int
    reason: Reason


Action = Pin | Resize | SetStatsPeriod


def guest_of(action: Action) -> str:
    """Return the UUID of the guest an action is about."""
    return action.vcpu.uuid if isinstance(action, Pin) else action.uuid


@dataclass(frozen=True, slots=True)
class CpuPlan:
    """A CPU policy's answer: only what should change, most urgent first."""

    pins: tuple[Pin, ...] = ()
    considered: tuple[Pin, ...] = ()
    """Pins that were weighed and found not worth it; the reason of each says what it lacks. For
    ``explain`` only: nothing is done with them, and a policy may leave them out."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """A memory policy's answer: a size for each guest it has an opinion on."""

    sizes: tuple[DesiredSize, ...] = ()


@dataclass(frozen=True, slots=True)
class Amendment:
    """Something the guard refused or changed, and why."""

    uuid: str
    asked: str
    granted: str | None
    """``None``: refused altogether."""
    reason: Reason


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the guard lets through, in the order in which it is to be done."""

    actions: tuple[Action, ...] = ()
    amendments: tuple[Amendment, ...] = ()
