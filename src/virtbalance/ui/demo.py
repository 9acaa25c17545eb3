"""What the demo shows besides actions: a line now and then, and before against after."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from virtbalance.ui.text import mib, table


@dataclass(frozen=True, slots=True)
class Measured:
    """Four guests and their host over a few seconds."""

    iterations_per_s: Mapping[str, float]
    """By guest name: what it got done, as it says itself."""
    balloon_kib: Mapping[str, int]
    held_kib: Mapping[str, int]
    """What its workload holds of the memory it wants."""
    pcpu_ratios: Mapping[int, float]
    """By CPU number: share of the time it was busy, with anything."""


def progress_line(now: Measured) -> str:
    """Return one line about this moment."""
    work = ", ".join(f"{name} {rate / 1e6:.0f}" for name, rate in now.iterations_per_s.items())
    return f"{_pcpus(now)}; million iterations a second: {work}"


def summary_lines(before: Measured, after: Measured, wanted_kib: Mapping[str, int]) -> list[str]:
    """Return the comparison: work, memory and pCPU use before and after."""
    rows: list[tuple[str, ...]] = [
        (
            name,
            f"{before.iterations_per_s[name] / 1e6:.2f}",
            f"{after.iterations_per_s[name] / 1e6:.2f}",
            f"{after.iterations_per_s[name] / max(1.0, before.iterations_per_s[name]):.2f}x",
            mib(before.balloon_kib[name]),
            mib(after.balloon_kib[name]),
            _held(before.held_kib[name], after.held_kib[name], wanted_kib.get(name)),
        )
        for name in before.iterations_per_s
    ]
    rows.append(_sum_row(before, after))
    header = ("guest", "Mit/s", "after", "ratio", "MiB", "after", "its load holds, MiB")
    return [
        *table(header, rows),
        f"pCPU use before: {_pcpus(before)}",
        f"pCPU use after:  {_pcpus(after)}",
    ]


def _sum_row(before: Measured, after: Measured) -> tuple[str, ...]:
    work_before = sum(before.iterations_per_s.values())
    work_after = sum(after.iterations_per_s.values())
    return (
        "all",
        f"{work_before / 1e6:.2f}",
        f"{work_after / 1e6:.2f}",
        f"{work_after / max(1.0, work_before):.2f}x",
        mib(sum(before.balloon_kib.values())),
        mib(sum(after.balloon_kib.values())),
        "",
    )


def _held(before_kib: int, after_kib: int, wanted_kib: int | None) -> str:
    if wanted_kib is None:
        return "-"
    return f"{mib(before_kib)} → {mib(after_kib)} of {mib(wanted_kib)}"


def _pcpus(measured: Measured) -> str:
    ratios: Sequence[tuple[int, float]] = sorted(measured.pcpu_ratios.items())
    return "  ".join(f"pCPU {pcpu} {ratio:4.0%}" for pcpu, ratio in ratios[:16])
