"""A page that shows results: one HTML file with everything in it, and the figures beside it."""

import html
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from virtbalance.bench.contenders import contender_names
from virtbalance.bench.figures import Compared, comparison, figures_of
from virtbalance.bench.metrics import Better, metrics
from virtbalance.bench.results import Result, read_all, read_series
from virtbalance.bench.tables import (
    Cell,
    Standing,
    contender,
    number_text,
    standings,
    verdict_text,
    with_regret,
)
from virtbalance.model.guest import RoleName

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DRAWN = 6
"""Contenders drawn for each scenario; all are in the tables."""
_PNG_DPI = 110


def write_report(directory: Path) -> Path:
    """Write ``report.html`` and ``figures/`` into a directory of results; return the page's path.

    Raises ``ResultsError`` if there are none, ``OSError`` if the page can't be written.
    """
    results = sorted(read_all(directory), key=_rank)
    page = "".join(_page(directory, results))
    path = directory / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def _rank(result: Result) -> tuple[str, int, str, int]:
    """Sort by scenario; in it a user's own policies first, then ours, then other systems' rules."""
    known = contender_names(RoleName(result.role))
    place = known.index(result.policy) if result.policy in known else -1
    return result.scenario, place, contender(result), result.seed


def _page(directory: Path, results: Sequence[Result]) -> Iterator[str]:
    tables = standings(results)
    yield _HEAD
    yield "<h1>virt-balance bench</h1>"
    yield f"<p class=lead>{_about(results)}</p>"
    yield from _overview(results)
    yield "<h2>Scenarios</h2><nav>"
    for table in tables:
        yield f'<a href="#{_anchor(table.scenario)}">{html.escape(table.scenario)}</a> '
    yield "</nav>"
    for table in tables:
        yield from _scenario(directory, table, [r for r in results if r.scenario == table.scenario])
    yield from _meanings(results)
    yield "</main></body></html>\n"


def _about(results: Sequence[Result]) -> str:
    scenarios = len({result.scenario for result in results})
    policies = len({result.policy for result in results})
    seeds = len({result.seed for result in results})
    versions = ", ".join(sorted({str(r.manifest.get("version")) for r in results}))
    return (
        f"{len(results)} runs: {_many(scenarios, 'scenario')}, {_many(policies, 'policy')},"
        f" {_many(seeds, 'seed')}; version {html.escape(versions)}. Figures are medians over seeds,"
        " with 95 % bootstrap intervals in brackets. <b class=best>Bold</b> is the best, and what"
        " is as good."
    )


def _many(count: int, word: str) -> str:
    if count == 1:
        return f"1 {word}"
    return f"{count} {word[:-1]}ies" if word.endswith("y") else f"{count} {word}s"


# Who is best where


def _overview(results: Sequence[Result]) -> Iterator[str]:
    """Yield one table a role: criteria passed, and means over all scenarios."""
    for role in dict.fromkeys(RoleName(result.role) for result in results):
        mine = with_regret([result for result in results if result.role == role])
        measured = {name for result in mine for name in result.metrics}
        chosen = [m for m in metrics(role).values() if m.headline and m.name in measured]
        everywhere = _scenarios_of_all(mine)
        yield f"<h2>All {role} scenarios</h2>"
        yield (
            f"<p>Means over the {_many(len(everywhere), 'scenario')} that every policy ran;"
            " none (–) where a run has no value, as for a balance that is never reached.</p>"
            "<div class=wide><table><thead><tr><th>policy<th>passed"
        )
        yield "".join(f"<th>{_metric_head(m.name, m.unit)}" for m in chosen)
        yield "</thead><tbody>"
        means = {
            policy: [_mean(mine, policy, everywhere, m.name) for m in chosen]
            for policy in dict.fromkeys(contender(result) for result in mine)
        }
        for policy, values in means.items():
            judged = [r.passed for r in mine if contender(r) == policy and r.passed is not None]
            passed = f"{sum(judged)} of {len(judged)}" if judged else "–"
            yield f"<tr><td>{html.escape(policy)}<td>{passed}"
            for at, (value, metric) in enumerate(zip(values, chosen, strict=True)):
                column = [row[at] for row in means.values() if row[at] is not None]
                best = _is_best(value, column, metric.better, metric.significant)
                yield f"<td{' class=best' if best else ''}>{_shown(value)}"
        yield "</tbody></table></div>"


def _scenarios_of_all(results: Sequence[Result]) -> set[str]:
    policies = {contender(result) for result in results}
    return {
        result.scenario
        for result in results
        if {contender(r) for r in results if r.scenario == result.scenario} == policies
    }


def _mean(results: Sequence[Result], policy: str, scenarios: set[str], name: str) -> float | None:
    values = [
        r.metrics.get(name) for r in results if contender(r) == policy and r.scenario in scenarios
    ]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def _is_best(
    value: float | None, column: Sequence[float | None], better: Better, significant: float
) -> bool:
    known = [other for other in column if other is not None]
    if value is None or len(known) < 2 or better is Better.NEITHER:
        return False
    best = min(known) if better is Better.LOWER else max(known)
    return max(known) - min(known) > significant and abs(value - best) <= significant


# One scenario


def _scenario(directory: Path, table: Standing, results: Sequence[Result]) -> Iterator[str]:
    title = table.title[:1].upper() + table.title[1:]
    yield f'<section id="{_anchor(table.scenario)}"><h2>{html.escape(title)}</h2>'
    yield f"<p class=name>{html.escape(table.scenario)}</p>"
    yield "<div class=wide><table><thead><tr><th>policy<th>passed"
    yield "".join(f"<th>{_metric_head(m.name, m.unit)}" for m in table.metrics)
    yield "</thead><tbody>"
    for row in table.rows:
        word = f"{row.passed} of {row.judged}" if row.judged else "–"
        failed = " class=failed" if row.passed < row.judged else ""
        yield f"<tr><td>{html.escape(row.policy)}<td{failed}>{word}"
        yield "".join(_cell(cell) for cell in row.cells)
    yield "</tbody></table></div>"
    yield from _failures(results)
    yield from _side_by_side(directory, table)
    yield from _pictures(directory, results)
    yield "</section>"


def _cell(cell: Cell) -> str:
    best = " class=best" if cell.best else ""
    if cell.summary is None:
        return "<td>–"
    text = _shown(cell.summary.median)
    if cell.summary.low != cell.summary.high:
        low, high = _shown(cell.summary.low), _shown(cell.summary.high)
        text += f"<small> [{low}, {high}]</small>"
    return f"<td{best}>{text}"


def _failures(results: Sequence[Result]) -> Iterator[str]:
    lines = []
    for result in results:
        lacking = [one for one in result.criteria if not one.passed]
        texts = [verdict_text(one) for one in lacking]
        texts += [result.error] if result.error else []
        if texts:
            what = html.escape("; ".join(texts))
            lines.append(f"<li>{html.escape(result.policy)}, seed {result.seed}: {what}")
    if lines:
        yield f"<details><summary>What failed ({len(lines)})</summary><ul>"
        yield "".join(lines)
        yield "</ul></details>"


def _side_by_side(directory: Path, table: Standing) -> Iterator[str]:
    """Yield the figure of all contenders, of the metrics in which they differ."""
    columns = []
    for at, metric in enumerate(table.metrics):
        cells = [row.cells[at] for row in table.rows]
        medians = [cell.summary.median for cell in cells if cell.summary]
        if medians and max(medians) - min(medians) > metric.significant:
            values = [(s.median, s.low, s.high) if (s := cell.summary) else None for cell in cells]
            best = [cell.best for cell in cells]
            columns.append(Compared(_metric_words(metric.name), metric.unit, values, best))
    if columns:
        figure = comparison([Path(row.policy).name for row in table.rows], columns)
        stem = f"{_anchor(table.scenario)}-side-by-side"
        yield f"<figure>{_drawn(figure, directory / 'figures' / stem)}</figure>"


def _pictures(directory: Path, results: Sequence[Result]) -> Iterator[str]:
    """Yield the first seed's figures, one tab a contender."""
    first: dict[str, Result] = {}
    for result in results:
        first.setdefault(contender(result), result)
    for at, (name, result) in enumerate(list(first.items())[:_DRAWN]):
        series = read_series(directory, result)
        if series is None:
            continue
        opened = " open" if at == 0 else ""
        seed = f"seed {result.seed}"
        yield f"<details{opened}><summary>{html.escape(name)}, {seed}</summary>"
        for kind, figure in figures_of(series).items():
            stem = f"{_anchor(result.scenario)}-{_anchor(result.policy)}-{result.on}-{kind}"
            yield f"<figure>{_drawn(figure, directory / 'figures' / stem)}</figure>"
        yield "</details>"


def _drawn(figure: "Figure", stem: Path) -> str:
    """Write a figure as SVG and PNG; return the SVG for the page."""
    import matplotlib as mpl

    stem.parent.mkdir(exist_ok=True)
    text = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none"}):  # words stay words
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = _PATH.sub(lambda path: _DECIMALS.sub(r"\1", path[0]), text.getvalue())
    stem.with_name(f"{stem.name}.svg").write_text(svg, encoding="utf-8")
    figure.savefig(stem.with_name(f"{stem.name}.png"), dpi=_PNG_DPI)
    inline = svg[svg.index("<svg") :]
    return _with_own_names(inline, _anchor(stem.name))


_PATH = re.compile(r' d="[^"]*"')
_DECIMALS = re.compile(r"(\d\.\d\d)\d+")
"""Hundredths of a point are more than can be seen, and a third of a picture's size is less."""


def _with_own_names(svg: str, prefix: str) -> str:
    """Make a picture's names differ from those of the others on the page."""
    for mark in ('id="', 'href="#', "url(#"):
        svg = svg.replace(mark, f"{mark}{prefix}-")
    return svg


# Words


def _meanings(results: Sequence[Result]) -> Iterator[str]:
    yield "<h2>What the figures mean</h2><dl>"
    for role in dict.fromkeys(RoleName(result.role) for result in results):
        for metric in metrics(role).values():
            yield f"<dt>{metric.name}<dd>{html.escape(metric.help)} ({html.escape(metric.unit)})"
    yield "</dl>"


def _metric_head(name: str, unit: str) -> str:
    return f"{_metric_words(name)}<br><small>{html.escape(unit)}</small>"


def _metric_words(name: str) -> str:
    for ending in ("_percent", "_points", "_s"):
        name = name.removesuffix(ending)
    return name.replace("_", " ")


def _shown(value: float | None) -> str:
    return "–" if value is None else number_text(value)


def _anchor(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-." else "-" for c in name)


_HEAD = """<!doctype html><html lang=en><head><meta charset=utf-8>
<meta name=viewport content="width=device-width"><title>virt-balance bench</title><style>
:root{--ink:#222831;--soft:#6b7681;--line:#e3e6ea;--best:#0b6b3a;--bad:#b3263a}
body{margin:0;background:#f6f7f9;color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:1080px;margin:0 auto;padding:24px 28px 80px;background:#fff}
h1{font-size:28px;margin:8px 0}h2{font-size:19px;margin:40px 0 8px}
p.lead{max-width:75ch}p.name,small{color:var(--soft);font-weight:normal}
p.name{margin:-6px 0 12px;font-family:ui-monospace,monospace;font-size:13px}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:14px;width:100%}
th{font-size:12px;text-align:right;vertical-align:bottom;padding:4px 10px;
 border-bottom:2px solid var(--ink);line-height:1.25}
td{padding:4px 10px;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child,td:first-child{text-align:left;padding-left:0}
.best{font-weight:700;color:var(--best)}.failed{color:var(--bad)}
nav{font-size:13px;columns:3}nav a{display:block;color:#1f6feb;text-decoration:none}
details{margin:10px 0}summary{cursor:pointer;font-weight:600;padding:4px 0}
figure{margin:6px 0 18px}figure svg{width:100%;height:auto}
dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 18px;font-size:13px}
dt{font-family:ui-monospace,monospace}dd{margin:0}
section{border-top:1px solid var(--line);margin-top:36px}
@media print{details{display:block}main{max-width:none}}
</style></head><body><main>"""
