"""What the memory figures mean: what each guest needs and what the host can give."""

from dataclasses import dataclass
from typing import NamedTuple

from virtbalance.model.snapshot import HostMemory


class GuestMemoryEstimate(NamedTuple):
    """Memory of one guest, as far as it can be believed."""

    uuid: str
    guest_name: str
    maximum_kib: int
    """Upper limit of the balloon: the definition's, or the owner's where lower."""
    minimum_kib: int
    actual_kib: int
    target_kib: int
    """What we asked for last; the actual size if we never did."""
    used_kib: int
    """Working memory inside the guest plus what the balloon can never free."""
    usable_kib: int
    """What could be taken without hurting; 0 where unknown."""
    unused_kib: int
    slope_kib_s: float
    """Growth of ``used``; never negative."""
    peak_kib: int
    """Recent maximum of ``used``, decaying."""
    pressure: bool
    """It swaps in or faults heavily."""
    hard_kib: int
    """Hard need: less than this hurts at once (memory.md, section 4, T1)."""
    soft_kib: int
    """Soft need: with room to breathe (T2)."""
    cache_kib: int
    """What it could use at most, filled cache included (T3)."""
    weight: float = 1.0
    swaps: bool = False
    """It has swap, so squeezing it slows it instead of killing it."""
    rss_kib: int | None = None
    fixed: str | None = None
    """Why it must not be resized (no driver, stale statistics, paused, excluded); ``None``: may."""
    growable_only: str | None = None
    """Why it may grow but not shrink (new, held); ``None``: both."""
    lead_kib: int = 0
    """The part of the hard need that is growth expected before the next look can be answered."""
    hidden: bool = False
    """It uses all it has and wants more: how much is not known, the claims are a next guess."""
    swap_in_kib_s: float = 0.0
    load_ended: bool = False
    """It has just given up a large part of its memory for good: nothing speaks for waiting."""
    stuck: bool = False
    """Its driver does not do what it is asked; it is ``fixed`` for a while."""
    charge_kib: int = 0
    """What a ``fixed`` guest takes out of the budget."""
    idle_kib: int = 0
    """What of its memory may be lent to others, because its balloon is stuck and it does not use
    it."""

    @property
    def committed_kib(self) -> int:
        """What it has or may have any moment without asking again."""
        return max(self.actual_kib, self.target_kib)


@dataclass(frozen=True, slots=True)
class CompartmentEstimate:
    """What a part of the host's memory can give to the guests that can't leave it."""

    name: str
    budget_kib: int
    """What those of them that can be resized may have in sum."""
    pool_kib: int
    """What stays free in it before anybody is given memory for cache alone."""
    guests: frozenset[str]
    """UUIDs."""


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """All guests, sorted by UUID, and what the host can give them."""

    host: HostMemory
    budget_kib: int
    """What all managed guests may have in sum; negative when the host is over-committed."""
    reserve_kib: int
    other_kib: int
    """Memory of the host used by anything but guests."""
    guests: tuple[GuestMemoryEstimate, ...]
    pool_kib: int = 0
    """What stays free on the host before anybody is given memory for cache alone."""
    interval_s: float = 0.0
    """Time since the previous look; 0 at the first."""
    compartments: tuple[CompartmentEstimate, ...] = ()
    reserved_kib: int = 0
    """Asked to be kept free for guests to come."""
    reserved_free_kib: int = 0
    """How much of that is free already."""
    withheld_kib: int = 0
    """What that takes out of the budget, with some room."""

    @property
    def whole_kib(self) -> int:
        """The budget with what reservations take out of it."""
        return self.budget_kib + self.withheld_kib

    @property
    def shortfall_kib(self) -> int:
        """By how much the guests' minima alone exceed what the host can give; 0: they fit."""
        return max(0, sum(guest.minimum_kib for guest in self.resizable) - self.whole_kib)

    @property
    def resizable(self) -> tuple[GuestMemoryEstimate, ...]:
        """The guests that share the budget."""
        return tuple(guest for guest in self.guests if guest.fixed is None)

    @property
    def committed_kib(self) -> int:
        """What the guests that share the budget have or may have any moment."""
        return sum(guest.committed_kib for guest in self.resizable)
