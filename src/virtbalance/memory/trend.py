"""Where a guest's use of memory is going: growth, recent peak, the end of a load, pressure."""

from typing import NamedTuple

from virtbalance.memory.reports import Report
from virtbalance.memory.settings import NeedSettings


class Use(NamedTuple):
    """Memory in use, by one report."""

    heard_s: float
    used_kib: int


class Trend(NamedTuple):
    """What is remembered of one guest's use."""

    recent: tuple[Use, ...] = ()
    """Oldest first: those inside the slope's window and the latest one before it."""
    peak_kib: float = 0.0
    low_since_s: float | None = None
    """Since when it has been far below its peak."""
    ended: bool = False
    """A load has just ended, as of the latest report."""


def follow(trend: Trend, use: Use, maximum_kib: int, settings: NeedSettings) -> Trend:
    """Take in the use by a new report."""
    if not trend.recent:
        return Trend((use,), use.used_kib)
    window_start_s = use.heard_s - settings.slope_window_s
    inside = [u for u in trend.recent[1:] if u.heard_s >= window_start_s]
    oldest = trend.recent[-1 - len(inside)]
    passed_s = use.heard_s - trend.recent[-1].heard_s
    peak_kib = max(use.used_kib, trend.peak_kib * 0.5 ** (passed_s / settings.peak_half_life_s))
    recent = (oldest, *inside, use)
    if use.used_kib > peak_kib - settings.load_end_ratio * maximum_kib:
        return Trend(recent, peak_kib)
    low_since_s = use.heard_s if trend.low_since_s is None else trend.low_since_s
    if use.heard_s - low_since_s < settings.load_end_s:
        return Trend(recent, peak_kib, low_since_s)
    # It has stayed far below its peak for long enough.
    return Trend(recent, use.used_kib, ended=True)


def slope_kib_s(trend: Trend) -> float:
    """Return the growth over the window or since the report before, whichever is faster.

    A load that has just begun shows in the latter only; a shrinking guest grows by 0.
    """
    if len(trend.recent) < 2:
        return 0.0
    oldest, before, last = trend.recent[0], trend.recent[-2], trend.recent[-1]
    return max(0.0, _growth_kib_s(oldest, last), _growth_kib_s(before, last))


def _growth_kib_s(earlier: Use, later: Use) -> float:
    return (later.used_kib - earlier.used_kib) / (later.heard_s - earlier.heard_s)


def under_pressure(last: Report, before: Report | None, settings: NeedSettings) -> bool:
    """Return whether the guest swapped in or faulted heavily between two reports.

    Counters that went down belong to a guest that started anew.
    """
    if before is None or last.heard_s <= before.heard_s:
        return False
    faults_per_s = (last.major_faults - before.major_faults) / (last.heard_s - before.heard_s)
    swapped_in_kib = last.swap_in_kib - before.swap_in_kib
    return (
        swapped_in_kib > settings.pressure_swap_in_kib
        or faults_per_s > settings.pressure_faults_per_s
    )


def swap_in_kib_s(last: Report, before: Report | None) -> float:
    """Return how fast the guest swapped in between two reports."""
    if before is None or last.heard_s <= before.heard_s:
        return 0.0
    return max(0.0, (last.swap_in_kib - before.swap_in_kib) / (last.heard_s - before.heard_s))
