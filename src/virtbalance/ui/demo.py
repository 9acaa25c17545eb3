"""What the demo shows: actions as they happen, a line now and then, and before against after."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from virtbalance.control.observers import TextOutput
from virtbalance.model.tick import Event, Tick
from virtbalance.ui.text import mib, table
from virtbalance.ui.tick_table import outcome_line


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


class ActionLines:
    """An observer that prints actions and events only, each with its reason."""

    def __init__(self, stream: TextOutput) -> None:
        self._stream = stream
        self._said: set[str] = set()

    def tick(self, tick: Tick) -> None:
        """Print what this tick did."""
        names = {guest.uuid: guest.name for guest in tick.snapshot.guests}
        lines = [outcome_line(outcome, names) for outcome in tick.outcomes]
        lines += [f"! {event.text}" for event in tick.events if event.kind != "guest-started"]
        for line in lines:
            print(f"  {tick.role:6} {line}", file=self._stream, flush=True)

    def notice(self, event: Event) -> None:
        """Print what happened between ticks."""
        if event.text not in self._said:  # both programs notice the same facts about the host
            self._said.add(event.text)
            print(f"  {event.text}", file=self._stream, flush=True)


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
