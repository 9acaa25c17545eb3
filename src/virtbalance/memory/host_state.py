"""How well the host itself is, in four states that are entered at once and left slowly.

                 enters when available is below        or tasks wait for memory
    yellow       reserve + half of the pool            -
    orange       0.9 x reserve                         some, 10 % of the time
    red          0.5 x reserve                         all, 10 % of the time

In units of the reserve and the pool, so that the place where the allocator itself comes to rest is
green. A state is left when its limits, made 1.25 times stricter, have been kept for 10 s
(memory.md, section 9).
"""

from dataclasses import dataclass
from enum import IntEnum

from virtbalance.memory.settings import GuardSettings
from virtbalance.model.memory_estimate import MemoryEstimate


class HostState(IntEnum):
    """Worse is larger."""

    GREEN = 0
    YELLOW = 1
    """No memory for cache alone."""
    ORANGE = 2
    """Reclaim what is not needed; growth only where urgent."""
    RED = 3
    """Reclaim down to the hard need; growth only up to the minimum."""


@dataclass(frozen=True, slots=True)
class HostWatch:
    """The state and how long it could have been left."""

    state: HostState = HostState.GREEN
    better_since_s: float | None = None


def watch_host(
    watch: HostWatch, estimate: MemoryEstimate, settings: GuardSettings, now_s: float
) -> HostWatch:
    """Take in how the host is now."""
    entered = _severity(estimate, settings, strictness=1.0)
    if entered >= watch.state:
        return HostWatch(entered)
    kept = _severity(estimate, settings, strictness=settings.leave_ratio)
    if kept >= watch.state:
        return HostWatch(watch.state)
    since_s = now_s if watch.better_since_s is None else watch.better_since_s
    if now_s - since_s >= settings.leave_s:
        return HostWatch(kept)
    return HostWatch(watch.state, since_s)


def _severity(estimate: MemoryEstimate, settings: GuardSettings, *, strictness: float) -> HostState:
    """Return the worst state whose limits are broken."""
    host, reserve_kib = estimate.host, estimate.reserve_kib
    available_kib = host.available_kib / strictness
    pressed_ratio = settings.pressure_ratio / strictness
    full_ratio, some_ratio = host.pressure_full_ratio or 0.0, host.pressure_some_ratio or 0.0
    if available_kib < settings.red_reserve_ratio * reserve_kib or full_ratio > pressed_ratio:
        return HostState.RED
    if available_kib < settings.orange_reserve_ratio * reserve_kib or some_ratio > pressed_ratio:
        return HostState.ORANGE
    if available_kib < reserve_kib + estimate.pool_kib / 2:
        return HostState.YELLOW
    return HostState.GREEN
