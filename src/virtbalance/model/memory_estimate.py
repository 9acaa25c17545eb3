"""What the memory figures mean: what each guest needs and what the host can give."""

from dataclasses import dataclass

from virtbalance.model.snapshot import HostMemory


@dataclass(frozen=True, slots=True)
class GuestMemoryEstimate:
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
