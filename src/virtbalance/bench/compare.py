"""Two sets of results side by side, seed by seed: what got better, what worse."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from virtbalance.bench.metrics import Better, Metric, metrics
from virtbalance.bench.results import Result, ResultsError, read_all
from virtbalance.bench.statistics import paired
from virtbalance.model.guest import RoleName
from virtbalance.ui.text import table

Key = tuple[str, str, str]


def comparison_lines(former: Path, latter: Path) -> list[str]:
    """Return a table of the differences that are more than chance. Raises ``ResultsError``."""
    before, after = _grouped(read_all(former)), _grouped(read_all(latter))
    common = [key for key in before if key in after]
    if not common:
        raise ResultsError(f"{former} and {latter} have no run in common")
    rows = [row for key in common for row in _differences(key, before[key], after[key])]
    lines = [f"{len(common)} scenarios and policies in common"]
    lines += _only(before, after, former) + _only(after, before, latter)
    if not rows:
        return [*lines, "no difference"]
    header = ("scenario", "policy", "metric", "difference", "95 % interval", "")
    return [*lines, *table(header, rows)]


def _grouped(results: Sequence[Result]) -> dict[Key, dict[int, Result]]:
    groups: dict[Key, dict[int, Result]] = {}
    for result in results:
        key = (result.scenario, result.policy, result.on)
        groups.setdefault(key, {})[result.seed] = result
    return groups


def _only(these: Mapping[Key, object], others: Mapping[Key, object], name: Path) -> list[str]:
    missing = [key for key in these if key not in others]
    return [f"{len(missing)} only in {name}"] if missing else []


def _differences(
    key: Key, before: Mapping[int, Result], after: Mapping[int, Result]
) -> Iterator[tuple[str, ...]]:
    seeds = [seed for seed in before if seed in after]
    role = RoleName(before[seeds[0]].role) if seeds else RoleName.CPU
    changed = sum(before[s].passed is not after[s].passed for s in seeds)
    if changed:
        now = sum(after[s].passed is True for s in seeds)
        was = sum(before[s].passed is True for s in seeds)
        word = "better" if now > was else "worse"
        yield (*key[:2], "passed", f"{now - was:+d}", f"{was} -> {now} of {len(seeds)}", word)
    for metric in metrics(role).values():
        difference = paired(
            [after[s].metrics.get(metric.name) for s in seeds],
            [before[s].metrics.get(metric.name) for s in seeds],
        )
        if difference is None or not difference.low * difference.high > 0:
            continue  # nothing, or no sign that is sure
        if abs(difference.median) <= metric.significant:
            continue
        interval = f"{difference.low:+.4g} to {difference.high:+.4g}"
        word = _word(metric, difference.median)
        yield (*key[:2], metric.name, f"{difference.median:+.4g}", interval, word)


def _word(metric: Metric, change: float) -> str:
    if metric.better is Better.NEITHER:
        return ""
    return "better" if (change < 0) == (metric.better is Better.LOWER) else "worse"
