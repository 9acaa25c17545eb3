"""What is known of a guest besides its counters: identity, definition, and the owner's wishes."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class RoleName(StrEnum):
    """The two programs."""

    CPU = "cpu"
    MEMORY = "memory"


class VcpuKey(NamedTuple):
    """Names one vCPU of one guest. Indices may have holes after hot-unplug."""

    uuid: str
    vcpu: int


class GuestState(StrEnum):
    """What of a guest's state matters here."""

    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"


WEIGHTS = (0.001, 1000.0)
"""Least and greatest weight that an owner can give: what control groups tell apart, and some."""


def checked_weight(weight: float) -> float:
    """Return the weight. ValueError, saying what it must be, if it is not within ``WEIGHTS``."""
    least, greatest = WEIGHTS
    if not least <= weight <= greatest:
        raise ValueError(f"must be a number from {least:g} to {greatest:g}")
    return weight


@dataclass(frozen=True, slots=True)
class GuestSettings:
    """The owner's wishes for one guest, from its libvirt metadata; ``None`` means the default."""

    weight: float = 1.0
    """Share relative to other guests, within ``WEIGHTS``."""
    minimum_kib: int | None = None
    """Never take the balloon below this."""
    maximum_kib: int | None = None
    """Never let the balloon grow above this (the definition's maximum is the other limit)."""
    exclude: frozenset[RoleName] = frozenset()
    """Programs that leave this guest alone."""
    swap: bool | None = None
    """It has swap, so that squeezing it slows it instead of killing it; ``None``: if it swapped."""
    revision: str = ""
    """When the owner set this last; a new one lifts every hold on the guest."""


USUAL_SHARES = 1024
"""What a guest without a weight of its own counts as; cgroup v2's 100 are translated."""


@dataclass(frozen=True, slots=True)
class GuestDefinition:
    """Facts from the guest's XML that change rarely."""

    cpuset: frozenset[int] | None = None
    """CPUs that ``<vcpu cpuset>`` allows; ``None``: all."""
    pinned_vcpus: frozenset[int] = frozenset()
    """vCPUs with a ``vcpupin`` in the persistent definition: the owner's decision, not ours."""
    cpu_shares: int | None = None
    """cgroup weight where ``USUAL_SHARES`` is usual; ``None``: it has none of its own."""
    quota_ratio: float | None = None
    """CPU bandwidth limit of one vCPU in pCPUs; ``None``: unlimited."""
    balloon: bool = True
    """Has a virtio balloon device."""
    autodeflate: bool = False
    free_page_reporting: bool = False
    unswappable: str | None = None
    """Why its memory can't be given back (hugepages, locked, hostdev); ``None``: it can."""
    memory_nodes: frozenset[int] | None = None
    """NUMA nodes a strict ``numatune`` binds its memory to; ``None``: not bound."""
    stats_period_s: int = 0
    """Balloon statistics period; 0: off."""
