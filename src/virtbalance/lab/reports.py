"""What a guest's program reports: the truth about what the guest got done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from virtbalance.lab.errors import LabError


@dataclass(frozen=True, slots=True)
class CpuReport:
    """One vCPU: the load it runs and what it has done since boot.

    `iterations` is cumulative and comparable between all kinds of load. The wake-ups are those
    of the load's own sleeps since the last report; how late they came in us, to within 25 %.
    """

    cpu: int
    load: str
    iterations: int
    wakes: int
    wake_p50_us: int
    wake_p99_us: int


@dataclass(frozen=True, slots=True)
class MemoryFigures:
    """The guest kernel's own figures in KiB; `ballooned_kib` is what the balloon holds."""

    total_kib: int
    available_kib: int
    free_kib: int
    swap_total_kib: int
    swap_free_kib: int
    ballooned_kib: int
    oom_kills: int


@dataclass(frozen=True, slots=True)
class MemoryReport:
    """The memory load: how it stands, and the guest's figures now and when growth ended.

    `outcome` is one of none, growing, limit (the limit asked for is held), floor (MemAvailable
    fell below the floor), held, freed, killed. `at_end` is all zero before growth ended.
    """

    outcome: str
    held_kib: int
    peak_kib: int
    kills: int
    failures: int
    now: MemoryFigures
    at_end: MemoryFigures


@dataclass(frozen=True, slots=True)
class Report:
    """One report; `monotonic_ns` is the guest's clock since its boot."""

    monotonic_ns: int
    cpus: tuple[CpuReport, ...]
    memory: MemoryReport

    @property
    def iterations(self) -> int:
        """The work of all vCPUs since boot."""
        return sum(cpu.iterations for cpu in self.cpus)


def parse_report(answer: dict[str, Any]) -> Report:
    """Read the answer to `report`; LabError if something is missing."""
    try:
        memory = dict(answer["memory"])
        at_end = MemoryFigures(**memory.pop("at_end"))
        load = {
            key: memory.pop(key) for key in ("outcome", "held_kib", "peak_kib", "kills", "failures")
        }
        return Report(
            monotonic_ns=answer["monotonic_ns"],
            cpus=tuple(CpuReport(**cpu) for cpu in answer["cpus"]),
            memory=MemoryReport(**load, now=MemoryFigures(**memory), at_end=at_end),
        )
    except (KeyError, TypeError) as error:
        raise LabError(f"a guest's report can't be read: {error}") from error
