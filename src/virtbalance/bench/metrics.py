"""What a metric is, and where all of them are: tables, reports and criteria derive from it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from virtbalance.bench.recording import Recording
from virtbalance.model.guest import RoleName

Compute = Callable[[Recording], float | None]
"""Returns ``None`` if the run says nothing about it."""


class Better(StrEnum):
    """Which way is better."""

    LOWER = "lower"
    HIGHER = "higher"
    NEITHER = "neither"


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of a run."""

    name: str
    unit: str
    better: Better
    help: str
    compute: Compute | None
    """``None``: no run has it by itself, it is found by comparison."""
    headline: bool = False
    """Shown in tables by default."""
    significant: float = 0.0
    """Differences below this are not worth a mark."""


def metrics(role: RoleName) -> Mapping[str, Metric]:
    """Return all metrics of a role by name, in the order in which they are shown."""
    from virtbalance.bench.metrics_cpu import CPU_METRICS
    from virtbalance.bench.metrics_memory import MEMORY_METRICS

    chosen = CPU_METRICS if role is RoleName.CPU else MEMORY_METRICS
    return {metric.name: metric for metric in chosen}


def computed(role: RoleName) -> Mapping[str, Compute]:
    """Return how each metric is computed that a run has by itself."""
    return {m.name: m.compute for m in metrics(role).values() if m.compute is not None}


def measure(recording: Recording, role: RoleName) -> dict[str, float | None]:
    """Return every metric of a recording; none has a value if there is no step in it."""
    known = computed(role)
    if not len(recording.times_s):
        return dict.fromkeys(known)
    return {name: compute(recording) for name, compute in known.items()}
