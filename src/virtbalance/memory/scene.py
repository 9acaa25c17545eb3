"""What the guard's steps of one tick have in common: how urgent things are, and what is free."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

from virtbalance.memory.host_state import HostState
from virtbalance.memory.settings import GuardSettings
from virtbalance.model.hold import Hold
from virtbalance.model.memory_estimate import (
    CompartmentEstimate,
    GuestMemoryEstimate,
    MemoryEstimate,
)
from virtbalance.model.plan import Amendment, Reason, Resize

_MIB = 1024


class Wish(NamedTuple):
    """A size the policy wants for a guest that may be resized, within the guest's bounds."""

    guest: GuestMemoryEstimate
    size_kib: int
    reason: Reason

    @property
    def urgent_kib(self) -> int:
        """The part of the wish that is hard need."""
        return min(self.guest.hard_kib, self.size_kib)


@dataclass(frozen=True, slots=True)
class Room:
    """A compartment, as the guard sees it."""

    name: str
    free_kib: int
    """What can be given inside it; negative: there is none."""
    starving: bool
    """Hard needs inside exceed that, or what is there is too much."""
    guests: frozenset[str]


@dataclass(frozen=True, slots=True)
class Scene:
    """One tick, as the guard sees it."""

    now_s: float
    interval_s: float
    state: HostState
    free_kib: int
    """What can be given: budget that nobody has or may have yet; negative: there is none."""
    starving: bool
    """Hard needs or what is reserved exceed what is free: who has too much must give at once."""
    critical: bool
    """The host itself is in need."""
    overload: bool
    """Not even the hard needs fit."""
    poorest_swap_in_kib_s: float
    """How fast the guest swaps in that has the smallest size per weight of those to get more."""
    holds: Mapping[str, Hold]
    settings: GuardSettings
    rooms: tuple[Room, ...] = ()

    def around(self, uuid: str) -> "Scene":
        """Return the scene as it is for one guest: it may starve in its compartment alone."""
        starving = any(room.starving for room in self.rooms if uuid in room.guests)
        return replace(self, starving=True) if starving else self

    @property
    def calm(self) -> bool:
        """Nobody is in need."""
        return not (self.starving or self.critical)


def set_scene(
    wishes: list[Wish],
    estimate: MemoryEstimate,
    state: HostState,
    holds: Mapping[str, Hold],
    settings: GuardSettings,
    now_s: float,
) -> Scene:
    """Weigh needs against what is free."""
    guests, committed_kib = estimate.resizable, estimate.committed_kib
    beyond_kib = estimate.budget_kib - committed_kib
    # The budget is an account; what is really there must agree. Growth must not turn the host red.
    red_kib = round(settings.red_reserve_ratio * estimate.reserve_kib)
    there_kib = estimate.host.available_kib - red_kib - estimate.withheld_kib
    free_kib = min(beyond_kib, there_kib)
    unfree_kib = estimate.reserved_kib - estimate.reserved_free_kib
    # Nobody is brought into distress for a guest that is not there yet.
    excess_kib = committed_kib - estimate.whole_kib
    needy = [wish.guest for wish in wishes if wish.size_kib > wish.guest.committed_kib]
    poorest = min(needy, key=lambda g: g.actual_kib / g.weight, default=None)
    return Scene(
        now_s=now_s,
        interval_s=estimate.interval_s,
        state=state,
        free_kib=free_kib,
        starving=_starving_kib(wishes, settings) > max(0, free_kib) or unfree_kib > 0,
        critical=state is HostState.RED
        or excess_kib > settings.critical_ratio * estimate.host.total_kib,
        overload=sum(g.hard_kib for g in guests) > estimate.whole_kib,
        poorest_swap_in_kib_s=poorest.swap_in_kib_s if poorest else 0.0,
        holds=holds,
        settings=settings,
        rooms=tuple(_room(c, wishes, guests, settings) for c in estimate.compartments),
    )


def _room(
    compartment: CompartmentEstimate,
    wishes: list[Wish],
    guests: tuple[GuestMemoryEstimate, ...],
    settings: GuardSettings,
) -> Room:
    inside = [wish for wish in wishes if wish.guest.uuid in compartment.guests]
    committed_kib = sum(g.committed_kib for g in guests if g.uuid in compartment.guests)
    free_kib = compartment.budget_kib - committed_kib
    excess_kib = settings.critical_ratio * compartment.budget_kib
    starving = _starving_kib(inside, settings) > max(0, free_kib) or -free_kib > excess_kib
    return Room(compartment.name, free_kib, starving, compartment.guests)


def _starving_kib(wishes: list[Wish], settings: GuardSettings) -> int:
    """Return how much hard need is not met."""
    urgent = (wish.urgent_kib - wish.guest.committed_kib for wish in wishes)
    return sum(kib for kib in urgent if kib > settings.urgent_band_kib)


def resize(wish: Wish, target_kib: int, limit: str) -> Resize:
    """Return the command, with the policy's reason and what bound this step of it."""
    figures = {
        **wish.reason.figures,
        "guard_from_mib": wish.guest.target_kib // _MIB,
        "guard_to_mib": target_kib // _MIB,
        "guard_limit": limit,
    }
    template = wish.reason.template + "; {guard_from_mib} to {guard_to_mib} MiB now: {guard_limit}"
    return Resize(wish.guest.uuid, target_kib, Reason(wish.reason.rule, template, figures))


def refusal(wish: Wish, rule: str, why: str) -> Amendment:
    """Return the note that a guest stays as it is although the policy wants another size."""
    return amendment(wish.guest, mib(wish.size_kib), None, rule, why)


def amendment(
    guest: GuestMemoryEstimate, asked: str, granted: str | None, rule: str, why: str
) -> Amendment:
    """Return the note that the guard refused or changed a size."""
    figures = {
        "guest": guest.guest_name,
        "asked": asked,
        "granted": granted or mib(guest.target_kib),
        "why": why,
    }
    verb = "stays at" if granted is None else "gets"
    reason = Reason(rule, "{guest} " + verb + " {granted}, not {asked}: {why}", figures)
    return Amendment(guest.uuid, asked, granted, reason)


def mib(kib: int) -> str:
    """Return a size for people."""
    return f"{kib // _MIB} MiB"
