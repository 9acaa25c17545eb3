"""What can be set for the two programs, with defaults that need no file."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from virtbalance.control.loop import LoopSettings
from virtbalance.cpu import settings as cpu
from virtbalance.memory import settings as memory


class OnExit(StrEnum):
    """What becomes of changes when a program ends."""

    RESTORE = "restore"
    KEEP = "keep"


PolicyTables = Mapping[str, Mapping[str, Any]]
"""Per policy name the values of its own ``Config``."""


@dataclass(frozen=True, slots=True)
class CpuSettings:
    """The vCPU scheduler's part of the settings file: ``[cpu]``."""

    period_s: float = 1.0
    """Time between decisions."""
    policy: str = "balance"
    on_exit: OnExit = OnExit.RESTORE
    include: tuple[str, ...] = ("*",)
    """Name patterns of guests to serve."""
    exclude: tuple[str, ...] = ()
    """Name patterns of guests to leave alone."""
    decide_limit_s: float | None = None
    """How long a policy may think; default: half the period, 0.05 to 5 s."""
    demand: cpu.DemandSettings = field(default_factory=cpu.DemandSettings)
    guard: cpu.GuardSettings = field(default_factory=cpu.GuardSettings)
    policies: PolicyTables = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_period(self.period_s)


@dataclass(frozen=True, slots=True)
class MemorySettings:
    """The memory coordinator's part of the settings file: ``[memory]``."""

    period_s: float = 2.0
    """Time between decisions."""
    policy: str = "fair"
    on_exit: OnExit = OnExit.KEEP
    include: tuple[str, ...] = ("*",)
    """Name patterns of guests to serve."""
    exclude: tuple[str, ...] = ()
    """Name patterns of guests to leave alone."""
    decide_limit_s: float | None = None
    """How long a policy may think; default: half the period, 0.05 to 5 s."""
    stats_period_s: int = 1
    """Balloon statistics period set for guests that have it off."""
    demand: memory.DemandSettings = field(default_factory=memory.DemandSettings)
    guard: memory.GuardSettings = field(default_factory=memory.GuardSettings)
    policies: PolicyTables = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_period(self.period_s)
        if self.stats_period_s < 1:
            raise ValueError(f"stats_period_s must be at least 1, not {self.stats_period_s}")


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole settings file."""

    uri: str | None = None
    """libvirt connection; default: libvirt's own."""
    cpu: CpuSettings = field(default_factory=CpuSettings)
    memory: MemorySettings = field(default_factory=MemorySettings)


_MEMORY_WARM_UP_LOOKS = 3
"""A guest's statistics must have been seen to move before they are believed."""


def loop_settings(settings: CpuSettings | MemorySettings, ticks: int | None) -> LoopSettings:
    """Derive how the loop runs from a program's settings.

    Before its first decision it looks for as long as its estimator needs, so that ``--once``
    says something.
    """
    period_s = settings.period_s
    if isinstance(settings, CpuSettings):
        look_s = cpu.sample_period_s(period_s)
        looks = max(1, math.ceil(period_s / look_s - 1e-9))
        missing_s = max(0.0, settings.demand.window_s - period_s)
        warm_up_looks, warm_up_s = 1 + math.ceil(missing_s / look_s - 1e-9), look_s
    else:
        looks, warm_up_looks, warm_up_s = 1, _MEMORY_WARM_UP_LOOKS, min(period_s, 1.0)
    limit_s = settings.decide_limit_s
    return LoopSettings(
        period_s=period_s,
        looks=looks,
        warm_up_looks=warm_up_looks,
        warm_up_s=warm_up_s,
        sense_deadline_s=min(2.0, max(0.25, period_s / 2)),
        decide_limit_s=min(5.0, max(0.05, period_s / 2)) if limit_s is None else limit_s,
        act_deadline_s=min(2.0, max(0.5, period_s / 2)),
        restore_on_exit=settings.on_exit is OnExit.RESTORE,
        ticks=ticks,
    )


def watching(settings: LoopSettings, watch_s: float) -> LoopSettings:
    """Return the settings of a single decision after so long, with looks as often as otherwise."""
    spacing_s = settings.period_s / settings.looks
    looks = max(1, round(watch_s / spacing_s))
    return replace(settings, period_s=looks * spacing_s, looks=looks, ticks=1)


def _check_period(period_s: float) -> None:
    if not (math.isfinite(period_s) and period_s >= 0.01):
        raise ValueError(f"period_s must be a number of seconds, at least 0.01, not {period_s}")
