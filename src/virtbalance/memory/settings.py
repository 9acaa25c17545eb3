"""Every threshold of the memory coordinator, by name and unit (memory.md gives the reasons)."""

import math
from dataclasses import dataclass, field
from enum import StrEnum

_MIB = 1024
_ANY = math.inf


def _check(settings: object, **limits: tuple[float, float]) -> None:
    """Raise ``ValueError`` for the first field outside its limits; ``None`` passes."""
    for name, (lowest, highest) in limits.items():
        value = getattr(settings, name)
        if value is not None and not lowest <= value <= highest:
            wanted = f"at least {lowest:g}" if highest == _ANY else f"{lowest:g} to {highest:g}"
            raise ValueError(f"{name} must be {wanted}, got {value:g}")


class Commit(StrEnum):
    """What a guest that can't be resized is charged."""

    STRICT = "strict"
    """All it has or may have: safe whatever it does."""
    REPORTED = "reported"
    """The same, but what a guest whose balloon is stuck was never seen to use is lent to guests
    with swap, which can return it."""
    MEASURED = "measured"
    """What it was seen to use, and some: the host may run short if it wakes up."""


@dataclass(frozen=True, slots=True)
class NeedSettings:
    """How much a guest needs, from what it uses (memory.md, section 4)."""

    minimum_kib: int = 256 * _MIB
    """No guest is taken below this, unless its owner set another minimum."""
    minimum_ratio: float = 0.10
    """Nor below this part of its maximum."""
    headroom_kib: int = 100 * _MIB
    """Usable memory without which it is in trouble at once."""
    headroom_ratio: float = 0.05
    """The same as a part of what it uses; the larger counts."""
    comfort_kib: int = 128 * _MIB
    """Usable memory with which it can breathe."""
    comfort_ratio: float = 0.20
    """The same as a part of what it uses; the larger counts."""
    unseen_kib_s: int = 20 * _MIB
    """A load that begins right after a look grows like this until the next one ..."""
    unseen_spare_kib: int = 50 * _MIB
    """... and should find this much usable still: with long ticks this is more than comfort."""
    cache_room_kib: int = 64 * _MIB
    """Room offered above the memory that is filled, page cache included."""
    cache_room_ratio: float = 0.10
    """The same as a part of its size; the larger counts."""
    slope_window_s: float = 4.0
    """Growth is measured over this time, or since the previous report where that is longer."""
    lead_s: float = 4.0
    """Growth is expected to go on for this long, or two ticks where that is longer."""
    lead_ratio: float = 0.25
    """But never by more than this part of its maximum."""
    peak_half_life_s: float = 60.0
    load_end_ratio: float = 0.20
    """A fall by this part of the maximum is the end of a load, not a breath."""
    load_end_s: float = 5.0
    """If it lasts this long."""
    tight_ratio: float = 0.05
    """With less of its size usable, its need is hidden by its size."""
    escalation_ratio: float = 1.25
    """And taken to be this many times its size, if it also grows or is under pressure."""
    soft_escalation_ratio: float = 2.0
    """Where there is plenty, this many times, so that it is soon seen what it really uses."""
    pressure_swap_in_kib: int = 1 * _MIB
    """Swapped in between two reports: under pressure."""
    pressure_faults_per_s: float = 50.0
    """Major faults: under pressure."""

    def __post_init__(self) -> None:
        _check(
            self,
            minimum_kib=(0, _ANY),
            minimum_ratio=(0, 1),
            headroom_kib=(0, _ANY),
            headroom_ratio=(0, 1),
            comfort_kib=(0, _ANY),
            comfort_ratio=(0, 4),
            unseen_kib_s=(0, _ANY),
            unseen_spare_kib=(0, _ANY),
            cache_room_kib=(0, _ANY),
            cache_room_ratio=(0, 1),
            slope_window_s=(0, 60),
            lead_s=(0, 60),
            lead_ratio=(0, 1),
            peak_half_life_s=(1, 3600),
            load_end_ratio=(0.01, 1),
            load_end_s=(0, 600),
            tight_ratio=(0, 0.5),
            escalation_ratio=(1, 4),
            soft_escalation_ratio=(1, 8),
            pressure_swap_in_kib=(0, _ANY),
            pressure_faults_per_s=(0, _ANY),
        )


@dataclass(frozen=True, slots=True)
class BudgetSettings:
    """What the host can give to all guests together (memory.md, section 5)."""

    budget_max_kib: int | None = None
    """All guests together never get more than this."""
    reserve_kib: int = 512 * _MIB
    """Left to the host on top of what it uses."""
    small_reserve_kib: int = 256 * _MIB
    """The same on a small host."""
    small_host_kib: int = 8192 * _MIB
    reserve_ratio: float = 0.05
    """Left to the host as a part of its memory; the larger counts."""
    pool_ratio: float = 0.04
    """Kept free on top for instant growth, before anybody gets memory for cache alone."""
    other_half_life_s: float = 60.0
    """What else the host uses is held at its peak, which decays."""
    overhead_kib: int = 64 * _MIB
    """What QEMU needs for itself per guest, until it was seen to need more."""
    reserved_room_kib: int = 16 * _MIB
    """Asked for on top of a reservation per guest: none gives less at once."""
    commit: Commit = Commit.REPORTED
    measured_ratio: float = 1.10
    """``reported`` and ``measured``: resident memory times this ..."""
    measured_room_kib: int = 512 * _MIB
    """... plus this."""

    def __post_init__(self) -> None:
        _check(
            self,
            budget_max_kib=(0, _ANY),
            reserved_room_kib=(0, _ANY),
            reserve_kib=(0, _ANY),
            small_reserve_kib=(0, _ANY),
            small_host_kib=(0, _ANY),
            reserve_ratio=(0, 0.9),
            pool_ratio=(0, 0.9),
            other_half_life_s=(1, 3600),
            overhead_kib=(0, _ANY),
            measured_ratio=(1, 4),
            measured_room_kib=(0, _ANY),
        )


@dataclass(frozen=True, slots=True)
class TrustSettings:
    """When a guest's report counts, and when its driver does (memory.md, sections 2, 3, 8)."""

    stale_s: float = 6.0
    """Statistics that did not change for this long are stale ..."""
    stale_periods: float = 3.0
    """... or for this many statistics periods or ticks, where that is longer."""
    fresh_periods: float = 2.0
    """Nor is a guest shrunk on a report older than this many periods or ticks."""
    new_s: float = 30.0
    """A guest that starts while we look on is not shrunk for this long."""
    new_reports: int = 3
    """Nor is any guest before it has reported this often."""
    silent_s: float = 60.0
    """A guest without any report for this long has no driver."""
    tolerance_kib: int = 4 * _MIB
    """A balloon this near to its target is there."""
    tolerance_ratio: float = 0.005
    """The same as a part of its maximum; the larger counts."""
    stuck_move_kib: int = 1 * _MIB
    """A balloon that moves less than this ..."""
    stuck_s: float = 6.0
    """... in this time is stuck."""
    crawl_kib_s: float = 1.0 * _MIB
    """So is one that moves more slowly than this on average ..."""
    crawl_s: float = 30.0
    """... over this time."""
    retry_s: float = 30.0
    """A stuck driver is tried again after this long, doubling ..."""
    retry_max_s: float = 600.0
    """... up to this."""
    mode_change_kib: int = 64 * _MIB
    """A change of size that shows whether the guest's total follows its balloon."""

    def __post_init__(self) -> None:
        _check(
            self,
            stale_s=(0.1, 3600),
            stale_periods=(1, 100),
            fresh_periods=(1, 100),
            new_s=(0, 3600),
            new_reports=(1, 100),
            silent_s=(1, 3600),
            tolerance_kib=(0, _ANY),
            tolerance_ratio=(0, 0.1),
            stuck_move_kib=(0, _ANY),
            stuck_s=(1, 3600),
            crawl_kib_s=(0, _ANY),
            crawl_s=(1, 3600),
            retry_s=(1, 3600),
            retry_max_s=(1, 86400),
            mode_change_kib=(1, _ANY),
        )


@dataclass(frozen=True, slots=True)
class DemandSettings:
    """All the estimator is told."""

    need: NeedSettings = field(default_factory=NeedSettings)
    budget: BudgetSettings = field(default_factory=BudgetSettings)
    trust: TrustSettings = field(default_factory=TrustSettings)


@dataclass(frozen=True, slots=True)
class GuardSettings:
    """Steps, floors and waiting times of the guard (memory.md, sections 7 and 9)."""

    safe_kib: int = 100 * _MIB
    """No guest is taken below what it uses plus this ..."""
    safe_ratio: float = 0.05
    """... or plus this part of what it uses; the larger counts."""
    calm_step_ratio: float = 0.5
    """Taken from a guest at once while nobody is in need: at most this part of its usable ..."""
    calm_step_kib: int = 100 * _MIB
    """... and at most this ..."""
    calm_step_maximum_ratio: float = 0.05
    """... or this part of its maximum, the larger of the two."""
    urgent_step_ratio: float = 0.9
    """While somebody starves, this part of its usable, but not above the same two limits."""
    shrink_band_kib: int = 64 * _MIB
    """While nobody is in need, less than this is not worth taking ..."""
    shrink_band_ratio: float = 0.03
    """... nor less than this part of its maximum ..."""
    shrink_band_kib_s: int = 16 * _MIB
    """... nor less than a busy guest may take back before the next tick, at this rate."""
    urgent_band_kib: int = 16 * _MIB
    """While somebody starves, less than this is not worth taking."""
    growth_wait_s: float = 30.0
    """A guest that grew is not shrunk for this long, while nobody is in need."""
    pressure_wait_s: float = 60.0
    """Nor one that was under pressure."""
    grow_band_kib: int = 32 * _MIB
    """Less than this is not worth giving, unless it is hard need or the last step ..."""
    grow_band_ratio: float = 0.01
    """... nor less than this part of its maximum ..."""
    cache_band_ratio: float = 0.04
    """... nor than this, where it has its soft need already and more is for cache alone. On
    recorded guests a fifth to a third of what was moved went to and fro for that."""
    urgent_grow_band_kib: int = 8 * _MIB
    """Hard need smaller than this can wait."""
    tolerance_kib: int = 4 * _MIB
    """Sizes this near to each other are the same."""
    critical_ratio: float = 0.02
    """Committed above the budget by this part of the host's memory: critical."""
    squeeze_ratio: float = 0.02
    """In overload a guest with swap may be taken below safe by this part of its size a tick ..."""
    squeeze_kib: int = 32 * _MIB
    """... or by this, the larger of the two ..."""
    squeeze_below_ratio: float = 0.08
    """... once less than this part of its size is usable."""
    orange_reserve_ratio: float = 0.9
    """Less of the reserve available on the host: reclaim what is not needed."""
    red_reserve_ratio: float = 0.5
    """Less than this: reclaim down to the hard need."""
    pressure_ratio: float = 0.10
    """Tasks of the host wait for memory this part of the time: orange; all of them: red."""
    leave_ratio: float = 1.25
    """A state is left when things are this many times better than where it began ..."""
    leave_s: float = 10.0
    """... for this long."""
    migrate_after_s: float = 120.0
    """An overload that lasts this long will not pass by itself: somebody should move away."""

    def __post_init__(self) -> None:
        _check(
            self,
            safe_kib=(0, _ANY),
            safe_ratio=(0, 1),
            calm_step_ratio=(0, 0.5),
            calm_step_kib=(0, _ANY),
            calm_step_maximum_ratio=(0, 1),
            urgent_step_ratio=(0, 1),
            shrink_band_kib=(0, _ANY),
            shrink_band_ratio=(0, 1),
            shrink_band_kib_s=(0, _ANY),
            urgent_band_kib=(0, _ANY),
            growth_wait_s=(0, 3600),
            pressure_wait_s=(0, 3600),
            grow_band_kib=(0, _ANY),
            grow_band_ratio=(0, 1),
            cache_band_ratio=(0, 1),
            urgent_grow_band_kib=(0, _ANY),
            tolerance_kib=(0, _ANY),
            critical_ratio=(0, 1),
            squeeze_ratio=(0, 1),
            squeeze_kib=(0, _ANY),
            squeeze_below_ratio=(0, 1),
            orange_reserve_ratio=(0, 1),
            red_reserve_ratio=(0, 1),
            pressure_ratio=(0, 1),
            leave_ratio=(1, 4),
            leave_s=(0, 600),
            migrate_after_s=(0, 86400),
        )
