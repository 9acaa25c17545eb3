"""Results as text: one line a run while it goes on, and a table of who is best at the end."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from virtbalance.bench.contenders import ORACLE
from virtbalance.bench.criteria import Judged
from virtbalance.bench.metrics import Better, Metric, metrics
from virtbalance.bench.metrics_cpu import REGRET, SHORTFALL
from virtbalance.bench.results import Result
from virtbalance.bench.schema import Scenario
from virtbalance.bench.statistics import Summary, summarize
from virtbalance.model.guest import RoleName
from virtbalance.ui.text import table

_WORDS = {True: "passed", False: "FAILED", None: "-"}


@dataclass(frozen=True, slots=True)
class Cell:
    """One policy's figure in one scenario."""

    summary: Summary | None
    best: bool


@dataclass(frozen=True, slots=True)
class Row:
    """One policy in one scenario, over all seeds."""

    policy: str
    passed: int
    judged: int
    errors: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Standing:
    """One scenario with everybody who ran it."""

    scenario: str
    title: str
    role: RoleName
    metrics: tuple[Metric, ...]
    rows: tuple[Row, ...]


def run_line(result: Result) -> str:
    """Return one line about a finished run."""
    line = f"{result.scenario}  {result.policy}  seed {result.seed}  {_WORDS[result.passed]}"
    failed = [one for one in result.criteria if not one.passed]
    if failed:
        line += ": " + "; ".join(verdict_text(one) for one in failed)
    if result.error:
        line += f" [{result.error}]"
    return line


def verdict_text(one: Judged) -> str:
    """Return a criterion and what the run came to; a metric without a value fails it."""
    if one.value is not None:
        return f"{one.text} (is {number_text(one.value)})"
    return f"{one.text} ({'never' if one.text.startswith('time_to_') else 'no value'})"


def standings(results: Sequence[Result], names: Sequence[str] = ()) -> tuple[Standing, ...]:
    """Return results by scenario; ``names``: these metrics instead of the headlines."""
    by_scenario: dict[str, list[Result]] = {}
    for result in results:
        by_scenario.setdefault(result.scenario, []).append(result)
    return tuple(_standing(group, names) for group in by_scenario.values())


def _standing(results: Sequence[Result], names: Sequence[str]) -> Standing:
    role = RoleName(results[0].role)
    results = with_regret(results)
    measured = {name for result in results for name in result.metrics}
    shown = tuple(
        metric
        for metric in metrics(role).values()
        if (metric.name in names if names else metric.headline) and metric.name in measured
    )
    by_policy: dict[str, list[Result]] = {}
    for result in results:
        by_policy.setdefault(contender(result), []).append(result)
    summaries = {
        policy: [summarize([r.metrics.get(m.name) for r in group]) for m in shown]
        for policy, group in by_policy.items()
    }
    best = [
        _best([values[at] for values in summaries.values()], metric)
        for at, metric in enumerate(shown)
    ]
    rows = tuple(
        Row(
            policy,
            passed=sum(r.passed is True for r in group),
            judged=sum(r.passed is not None for r in group),
            errors=sum(r.error is not None for r in group),
            cells=tuple(
                Cell(s, _is_best(s, best[at], metric))
                for at, (s, metric) in enumerate(zip(summaries[policy], shown, strict=True))
            ),
        )
        for policy, group in by_policy.items()
    )
    return Standing(results[0].scenario, results[0].title, role, shown, rows)


def with_regret(results: Sequence[Result]) -> list[Result]:
    """Return the results with their regret, where the oracle met the same seed."""
    best = {
        (r.scenario, r.on, r.seed): r.metrics.get(SHORTFALL) for r in results if r.policy == ORACLE
    }
    return [_with_regret(r, best.get((r.scenario, r.on, r.seed))) for r in results]


def _with_regret(result: Result, best: float | None) -> Result:
    mine = result.metrics.get(SHORTFALL)
    if mine is None or best is None:
        return result
    return replace(result, metrics={**result.metrics, REGRET: mine - best})


def contender(result: Result) -> str:
    """Return a policy and, where that is not the simulator, on what it ran."""
    return result.policy if result.on == "sim" else f"{result.policy} ({result.on})"


def _best(summaries: Sequence[Summary | None], metric: Metric) -> float | None:
    """Return the best median; ``None`` where there is no better or worse."""
    medians = [summary.median for summary in summaries if summary is not None]
    if metric.better is Better.NEITHER or len(medians) < 2:
        return None
    best, worst = min(medians), max(medians)
    if metric.better is Better.HIGHER:
        best, worst = worst, best
    return best if abs(best - worst) > metric.significant else None


def _is_best(summary: Summary | None, best: float | None, metric: Metric) -> bool:
    if summary is None or best is None:
        return False
    return abs(summary.median - best) <= metric.significant


def standing_lines(standing: Standing) -> Iterator[str]:
    """Yield a scenario's table; ``*`` marks the best and what is as good."""
    yield f"{standing.scenario}: {standing.title}"
    header = ["policy", "passed", *(f"{m.name}" for m in standing.metrics)]
    rows = [
        [
            row.policy,
            f"{row.passed}/{row.judged}" if row.judged else "-",
            *(_cell_text(cell) for cell in row.cells),
        ]
        for row in standing.rows
    ]
    yield from table(header, rows)


def _cell_text(cell: Cell) -> str:
    if cell.summary is None:
        return "-"
    text = number_text(cell.summary.median)
    if cell.summary.count > 1 and cell.summary.low != cell.summary.high:
        text += f" [{number_text(cell.summary.low)}, {number_text(cell.summary.high)}]"
    return f"{text}*" if cell.best else text


def number_text(value: float | None) -> str:
    """Return a figure in as many digits as are worth reading."""
    if value is None:
        return "never"
    if value == int(value) and abs(value) < 1e6:
        return f"{value:.0f}"
    value = round(value, 3) + 0.0  # no minus before nothing
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def scenario_lines(scenarios: Sequence[Scenario]) -> list[str]:
    """Return the list of scenarios, one line a file."""
    files: dict[str, list[Scenario]] = {}
    for scenario in scenarios:
        files.setdefault(scenario.name.partition("/")[0], []).append(scenario)
    rows = [
        (name, first.role, f"{len(group)}", " ".join(first.tags), first.title)
        for name, group in files.items()
        for first in group[:1]
    ]
    widths = [max(len(row[at]) for row in rows) for at in range(4)]
    return [
        "  ".join((*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[4]))
        for row in (("name", "role", "runs", "tags", "title"), *rows)
    ]


def metric_lines(role: RoleName) -> list[str]:
    """Return what every metric means."""
    rows: list[Mapping[str, str]] = [
        {"name": m.name, "unit": m.unit, "better": m.better, "help": m.help}
        for m in metrics(role).values()
    ]
    width = max(len(row["name"]) for row in rows)
    return [
        f"{row['name'].ljust(width)}  {row['help']} ({row['unit']}, {row['better']} is better)"
        if row["better"] != Better.NEITHER
        else f"{row['name'].ljust(width)}  {row['help']} ({row['unit']})"
        for row in rows
    ]
