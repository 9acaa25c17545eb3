"""Is the simulator true? The same scenarios on real guests and simulated, and how far apart."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from virtbalance.bench.library import find
from virtbalance.bench.results import Job, Result, read_series
from virtbalance.ui.text import table

CASES = (
    ("p2/3-on-2/1s", "none"),
    ("c1/4-on-2/1s", "balance"),
    ("c2/4-on-2/1s", "balance"),
    ("c3/4-on-2/1s", "balance"),
    ("c4/4-on-2/1s", "balance"),
    ("c5/4-on-2/1s", "balance"),
    ("m1/small/1s", "fair"),
    ("m4/small/1s", "fair"),
)
"""Scenarios a small machine can hold, each with the policy it runs under."""

Series = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Compared:
    """One figure of one scenario."""

    scenario: str
    figure: str
    simulated: float | None
    real: float | None
    difference: float | None


def truth_jobs() -> list[Job]:
    """Return every case once simulated and once on real guests."""
    return [
        Job(scenario, policy, 0, on)
        for name, policy in CASES
        for scenario in find([name])
        for on in ("sim", "lab")
    ]


def comparisons(results: Sequence[Result], directory: Path) -> Iterator[Compared]:
    """Yield the figures of every case that ran in both worlds."""
    by_case = {(r.scenario, r.on): r for r in results}
    for name, _ in CASES:
        simulated, real = by_case.get((name, "sim")), by_case.get((name, "lab"))
        if simulated is None or real is None:
            continue
        curves, real_curves = read_series(directory, simulated), read_series(directory, real)
        if curves is None or real_curves is None:
            continue
        figures = _CPU if simulated.role == "cpu" else _MEMORY
        for metric in figures:
            values = simulated.metrics.get(metric), real.metrics.get(metric)
            yield Compared(name, metric, *values, _apart(*values))
        if simulated.role == "cpu":
            yield _shares(name, curves, real_curves)
        else:
            yield _trajectories(name, curves, real_curves)


_CPU = ("jain_run", "pcpu_sd_points", "time_to_balance_s", "pin_changes", "demand_error")
_MEMORY = ("limit_reached", "largest_mib", "smallest_mib", "last_largest_mib")


def _apart(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else abs(one - other)


def _shares(name: str, simulated: Series, real: Series) -> Compared:
    """Compare mean CPU shares over the second half; who got which is chance where all are alike."""
    one, other = (np.sort(_second_half(series["run"])) for series in (simulated, real))
    worst = float(np.abs(one - other).max())
    return Compared(name, "CPU share, worst guest", float(one.mean()), float(other.mean()), worst)


def _second_half(rows: Sequence[Sequence[float]]) -> "np.typing.NDArray[np.float64]":
    values = np.array(rows, float)
    return np.asarray(values[len(values) // 2 :].mean(axis=0))


def _trajectories(name: str, simulated: Series, real: Series) -> Compared:
    """Compare balloons second by second, guest by guest: the mean distance in MiB."""
    one, other = (np.array(series["actual_mib"], float) for series in (simulated, real))
    length = min(len(one), len(other))
    distance = float(np.nanmean(np.abs(one[:length] - other[:length])))
    means = float(np.nanmean(one)), float(np.nanmean(other))
    return Compared(name, "balloon, mean distance", *means, distance)


def comparison_table(found: Sequence[Compared], shown: Callable[[float | None], str]) -> list[str]:
    """Return the comparison as text."""
    rows = [
        (one.scenario, one.figure, shown(one.simulated), shown(one.real), shown(one.difference))
        for one in found
    ]
    return table(("scenario", "figure", "simulated", "real", "apart"), rows)
