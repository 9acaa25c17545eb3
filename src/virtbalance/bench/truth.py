"""Is the simulator true? The same scenarios on real guests and simulated, and how far apart."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from virtbalance.bench.library import find
from virtbalance.bench.results import Job, Result, read_series
from virtbalance.ui.text import table


class Case(NamedTuple):
    """A scenario a small machine can hold, and the figures of it that are judged."""

    scenario: str
    policy: str
    judged: frozenset[str] = frozenset()


JAIN, DEMAND, SHARE = "jain_run", "demand_error", "CPU share, worst guest"
CASES = (
    Case("p2/3-on-2/1s", "none", frozenset({JAIN, DEMAND})),
    *(Case(f"c{n}/4-on-2/1s", "balance", frozenset({SHARE})) for n in range(1, 6)),
    Case("loops/plain/1s", "hold", frozenset({DEMAND})),
    Case("m1/small/1s", "fair"),
    Case("m4/small/1s", "fair"),
)

Series = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Compared:
    """One figure of one scenario in both worlds."""

    scenario: str
    figure: str
    simulated: float | None
    real: float | None
    difference: float | None
    demanded: str = ""
    """What must hold of it, in words; nothing where it is only shown."""
    holds: bool | None = None


def truth_jobs() -> list[Job]:
    """Return every case once simulated and once on real guests."""
    return [
        Job(scenario, case.policy, 0, on)
        for case in CASES
        for scenario in find([case.scenario])
        for on in ("sim", "lab")
    ]


def comparisons(results: Sequence[Result], directory: Path) -> Iterator[Compared]:
    """Yield the figures of every case that ran in both worlds."""
    by_case = {(r.scenario, r.on): r for r in results}
    for name, _, judged in CASES:
        simulated, real = by_case.get((name, "sim")), by_case.get((name, "lab"))
        if simulated is None or real is None:
            continue
        curves, real_curves = read_series(directory, simulated), read_series(directory, real)
        if curves is None or real_curves is None:
            continue
        figures = _CPU if simulated.role == "cpu" else _MEMORY
        found = [
            _compared(name, metric, simulated.metrics.get(metric), real.metrics.get(metric))
            for metric in figures
        ]
        if simulated.role == "cpu":
            found.append(_shares(name, curves, real_curves))
        else:
            found.append(_trajectories(name, curves, real_curves))
        yield from (_judged(one) if one.figure in judged else one for one in found)


_CPU = (JAIN, "pcpu_sd_points", "time_to_balance_s", "pin_changes", DEMAND)
_MEMORY = ("limit_reached", "largest_mib", "smallest_mib", "last_largest_mib")
_LEAST_JAIN, _JAINS_APART, _SHARES_APART, _DEMAND_ERROR = 0.99, 0.03, 0.05, 0.03


def _judged(one: Compared) -> Compared:
    """Say what must hold of a figure, and whether it does."""
    words = {
        JAIN: f"simulated >= {_LEAST_JAIN:g}, apart <= {_JAINS_APART:g}",
        DEMAND: f"both <= {_DEMAND_ERROR:g}",
        SHARE: f"apart <= {_SHARES_APART:g}",
    }[one.figure]
    if one.simulated is None or one.real is None or one.difference is None:
        return replace(one, demanded=words, holds=False)
    holds = {
        JAIN: one.simulated >= _LEAST_JAIN and one.difference <= _JAINS_APART,
        DEMAND: max(one.simulated, one.real) <= _DEMAND_ERROR,
        SHARE: one.difference <= _SHARES_APART,
    }[one.figure]
    return replace(one, demanded=words, holds=holds)


def _compared(name: str, figure: str, simulated: float | None, real: float | None) -> Compared:
    return Compared(name, figure, simulated, real, _apart(simulated, real))


def _apart(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else abs(one - other)


def _shares(name: str, simulated: Series, real: Series) -> Compared:
    """Compare mean CPU shares over the second half; who got which is chance where all are alike."""
    one, other = (np.sort(_second_half(series["run"])) for series in (simulated, real))
    worst = float(np.abs(one - other).max())
    return Compared(name, SHARE, float(one.mean()), float(other.mean()), worst)


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
        (
            one.scenario,
            one.figure,
            shown(one.simulated),
            shown(one.real),
            shown(one.difference),
            one.demanded,
            _VERDICTS[one.holds],
        )
        for one in found
    ]
    return table(("scenario", "figure", "simulated", "real", "apart", "must be", ""), rows)


_VERDICTS = {True: "holds", False: "FAILS", None: ""}
