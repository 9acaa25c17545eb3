"""``virt-balance bench``: policies compared on simulated hosts, traces and real guests."""

import argparse
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from virtbalance.cli.arguments import count
from virtbalance.cli.errors import CommandError, UsageError

if TYPE_CHECKING:
    from virtbalance.bench.pool import Progress
    from virtbalance.bench.results import Job, Result
    from virtbalance.bench.schema import Scenario

FAILED = 1
_COLUMNS = 80
"""Of a terminal that does not say how many it has."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    commands = parser.add_subparsers(dest="bench_command", metavar="COMMAND", required=True)
    parser.set_defaults(traces=None)
    listing = commands.add_parser("list", help="the built-in scenarios and who competes")
    listing.add_argument("--metrics", action="store_true", help="what is measured instead")
    show = commands.add_parser("show", help="what a scenario is")
    show.add_argument("scenarios", metavar="SCENARIO", nargs="+")
    run = commands.add_parser("run", help="run scenarios under policies")
    _add_run_arguments(run)
    sweep = commands.add_parser("sweep", help="run scenarios over a grid of settings")
    _add_run_arguments(sweep)
    pairs = commands.add_parser("pairs", help="policies in turn on the same guests, as ratios")
    _add_scenarios(pairs)
    _add_competitors(pairs)
    pairs.add_argument(
        "--pairs", metavar="N", type=count, default=5, help="turns of every policy (default: 5)"
    )
    report = commands.add_parser("report", help="make a page with figures of results")
    report.add_argument("directory", metavar="DIR", type=Path)
    compare = commands.add_parser("compare", help="compare two sets of results")
    compare.add_argument("former", metavar="DIR", type=Path)
    compare.add_argument("latter", metavar="DIR", type=Path)
    validate = commands.add_parser("validate", help="hold the simulator against real guests")
    validate.add_argument(
        "--out", metavar="DIR", type=Path, help="keep results here; resume if there"
    )


def _add_run_arguments(parser: argparse.ArgumentParser) -> None:
    _add_scenarios(parser)
    _add_competitors(parser)
    parser.add_argument(
        "--seeds", metavar="N", type=count, default=1, help="runs with seeds 0..N-1"
    )
    parser.add_argument("--jobs", metavar="N", type=count, default=1, help="worker processes")
    parser.add_argument(
        "--out", metavar="DIR", type=Path, help="keep results here; resume if there"
    )
    parser.add_argument(
        "--metric",
        metavar="NAME",
        action="append",
        dest="metrics",
        default=[],
        help="columns of the table (may be repeated)",
    )


def _add_scenarios(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "scenarios", metavar="SCENARIO", nargs="+", help="a name, pattern, tag, FILE.toml, or all"
    )
    parser.add_argument("--on", choices=["sim", "lab"], default="sim", help="where (default: sim)")
    parser.add_argument(
        "--set",
        metavar="KEY=VALUE[,VALUE...]",
        action="append",
        dest="axes",
        default=[],
        help="settings: period_s, guard.pins, policies.NAME.KEY; several values make a grid",
    )
    parser.add_argument(
        "--traces", metavar="DIR", type=Path, help="where the public traces are (docs/bench.md)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a run")


def _add_competitors(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--policy",
        metavar="NAME|FILE.py:CLASS",
        action="append",
        dest="policies",
        help="who competes (may be repeated; default: balance, fair; 'all': everybody)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Do what was asked; return the exit code."""
    from virtbalance.bench.results import ResultsError
    from virtbalance.control.config import ConfigError
    from virtbalance.control.policies import PolicyError

    if arguments.traces is not None:
        from virtbalance.bench.traces import DIRECTORY_VARIABLE

        os.environ[DIRECTORY_VARIABLE] = str(arguments.traces)
    try:
        return _COMMANDS[arguments.bench_command](arguments)
    except (ConfigError, PolicyError) as error:
        raise UsageError(str(error)) from error
    except ResultsError as error:
        raise CommandError(str(error)) from error


# Looking


def _list(arguments: argparse.Namespace) -> int:
    from virtbalance.bench.contenders import contender_names
    from virtbalance.bench.library import built_in
    from virtbalance.bench.tables import metric_lines, scenario_lines
    from virtbalance.model.guest import RoleName

    if arguments.metrics:
        for role in RoleName:
            _print_all([f"{role}:", *(f"  {line}" for line in metric_lines(role)), ""])
        return 0
    _print_all(scenario_lines(built_in()))
    for role in RoleName:
        print(f"{role} policies: {', '.join(contender_names(role))}")
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from virtbalance.bench.library import find, source_of

    shown: set[str] = set()
    for scenario in find(arguments.scenarios):
        file = scenario.name.partition("/")[0]
        if file not in shown:
            shown.add(file)
            print(source_of(arguments.scenarios, file))
        print(f"# runs as {scenario.name} for {scenario.duration_s:g} s")
    return 0


# Running


def _run(arguments: argparse.Namespace) -> int:
    from virtbalance.bench.pool import REAL_GUESTS, SIMULATED, PoolSettings, run_all
    from virtbalance.bench.tables import run_line, standing_lines, standings

    jobs = _jobs(arguments)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
    show = _Status(sys.stderr.isatty())
    results = []
    on_lab = arguments.on == "lab"
    workers = 1 if on_lab else arguments.jobs  # real guests share one machine
    patience = REAL_GUESTS if on_lab else SIMULATED
    settings = PoolSettings(workers, arguments.out, patience)
    with _closing_early(run_all(jobs, settings, show.update)) as finished:
        for result in finished:
            results.append(result)
            show.clear()
            _say(result, run_line, as_json=arguments.json)
    show.clear()
    if not arguments.json:
        for standing in standings(results, arguments.metrics):
            _print_all(["", *standing_lines(standing)])
    return FAILED if any(result.passed is False for result in results) else 0


def _sweep(arguments: argparse.Namespace) -> int:
    if not arguments.axes:
        raise UsageError("sweep needs --set KEY=VALUE,VALUE")
    return _run(arguments)


def _pairs(arguments: argparse.Namespace) -> int:
    from virtbalance.bench.pairs import ratio_table, ratios, turn_json, turn_line, turns

    scenarios = _scenarios(arguments)
    policies = _policies(arguments.policies, scenarios).get("cpu", ())
    if len(policies) < 2:
        raise UsageError("pairs needs two policies for vCPUs or more, the one in question first")
    found = []
    output = sys.stdout
    try:
        with contextlib.redirect_stdout(sys.stderr):  # a user's policy may print
            for scenario in scenarios:
                going = turns(scenario, policies, arguments.pairs, arguments.on)
                with contextlib.closing(going):
                    for turn in going:
                        found.append(turn)
                        line = json.dumps(turn_json(turn)) if arguments.json else turn_line(turn)
                        print(line, file=output, flush=True)
    finally:  # turns that were had count, whatever ended them
        if found and not arguments.json:
            _print_all(["", *ratio_table(list(ratios(found, policies)))])
    return 0


def _jobs(arguments: argparse.Namespace) -> list["Job"]:
    """Return all runs asked for. Raises ``ConfigError``, ``PolicyError``."""
    from virtbalance.bench.results import Job

    scenarios = _scenarios(arguments)
    _check_metrics(arguments.metrics, scenarios)
    policies = _policies(arguments.policies, scenarios)
    return [
        Job(scenario, policy, seed, arguments.on)
        for scenario in scenarios
        for policy in policies[scenario.role]
        for seed in range(arguments.seeds)
    ]


def _scenarios(arguments: argparse.Namespace) -> Sequence["Scenario"]:
    """Return the scenarios asked for with the settings asked for. Raises ``ConfigError``."""
    from virtbalance.bench.criteria import check_criteria
    from virtbalance.bench.library import find
    from virtbalance.bench.runner import program_settings
    from virtbalance.bench.sweep import grid, parse_axes

    scenarios = find(arguments.scenarios)
    if arguments.axes:
        scenarios = grid(scenarios, parse_axes(arguments.axes))
    for scenario in scenarios:
        check_criteria(scenario)
        program_settings(scenario)
    return scenarios


def _check_metrics(names: Sequence[str], scenarios: Sequence["Scenario"]) -> None:
    from virtbalance.bench.metrics import metrics

    known = {name for scenario in scenarios for name in metrics(scenario.role)}
    for name in names:
        if name not in known:
            raise UsageError(f"no metric {name!r}; 'virt-balance bench list --metrics' shows them")


def _policies(
    references: Sequence[str] | None, scenarios: Sequence["Scenario"]
) -> Mapping[str, Sequence[str]]:
    """Return who competes in scenarios of each role. Raises ``ConfigError``, ``PolicyError``."""
    with contextlib.redirect_stdout(sys.stderr):  # a user's policy may print
        policies = _named(references, scenarios)
        _check_settings(scenarios, policies)
    return policies


def _named(
    references: Sequence[str] | None, scenarios: Sequence["Scenario"]
) -> Mapping[str, Sequence[str]]:
    """Return the policies meant for each role; a name counts where there is such a policy."""
    from virtbalance.bench.contenders import check, contender_names
    from virtbalance.control.policies import PolicyError

    roles = list(dict.fromkeys(scenario.role for scenario in scenarios))
    if not references:
        return {role: [_DEFAULT[role]] for role in roles}
    chosen: dict[str, list[str]] = {role: [] for role in roles}
    for reference in references:
        if ".py:" in reference and len(roles) > 1:
            raise UsageError(f"{reference}: name scenarios of one role only for a policy file")
        problems = []
        for role in roles:
            if reference == "all":
                chosen[role] += contender_names(role)
                continue
            try:
                check(role, reference)
            except PolicyError as error:
                problems.append(error)
            else:
                chosen[role].append(reference)
        if len(problems) == len(roles):
            raise problems[0]
    return {role: list(dict.fromkeys(names)) for role, names in chosen.items()}


def _check_settings(scenarios: Sequence["Scenario"], policies: Mapping[str, Sequence[str]]) -> None:
    """Raise ``ConfigError`` or ``PolicyError`` if a policy can't be had as a scenario wants it."""
    from virtbalance.bench.contenders import check_settings
    from virtbalance.bench.runner import program_settings

    different = {(s.role, json.dumps(s.settings, default=str)): s for s in scenarios}
    for scenario in different.values():
        check_settings(policies[scenario.role], program_settings(scenario))


_DEFAULT = {"cpu": "balance", "memory": "fair"}


def _say(result: "Result", line: Callable[["Result"], str], *, as_json: bool) -> None:
    from virtbalance.bench.results import as_json as object_of

    print(json.dumps(object_of(result)) if as_json else line(result), flush=True)


class _closing_early:  # noqa: N801 - reads like contextlib.closing
    """Closes an iterator of results when an interrupt or an error comes between two of them."""

    def __init__(self, results: Iterator["Result"]) -> None:
        self._results = results

    def __enter__(self) -> Iterator["Result"]:
        return self._results

    def __exit__(self, *_: object) -> None:
        self._results.close()  # type: ignore[attr-defined]


class _Status:
    """A line on the terminal that says how far things are, and is gone when they are done."""

    def __init__(self, shown: bool) -> None:  # noqa: FBT001 - its only argument
        self._shown = shown

    def update(self, progress: "Progress") -> None:
        """Write the line anew."""
        if self._shown:
            running = ", ".join(f"{name} {share:.0%}" for name, share in progress.running[:3])
            text = f"{progress.done}/{progress.total}  {running}"
            columns = os.get_terminal_size(sys.stderr.fileno()).columns or _COLUMNS
            width = columns - 1  # a full line would begin another
            print(f"\r\x1b[K{text[:width]}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Take the line away."""
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _print_all(lines: Sequence[str]) -> None:
    print("\n".join(lines))


# Reading results


def _report(arguments: argparse.Namespace) -> int:
    from virtbalance.bench.report import write_report

    print(write_report(arguments.directory))
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    from virtbalance.bench.compare import comparison_lines

    _print_all(comparison_lines(arguments.former, arguments.latter))
    return 0


def _validate(arguments: argparse.Namespace) -> int:
    from virtbalance.bench.pool import REAL_GUESTS, PoolSettings, run_all
    from virtbalance.bench.tables import number_text, run_line
    from virtbalance.bench.truth import comparison_table, comparisons, truth_jobs

    show = _Status(sys.stderr.isatty())
    results = []
    with contextlib.ExitStack() as held:
        directory = arguments.out or Path(held.enter_context(tempfile.TemporaryDirectory()))
        settings = PoolSettings(1, directory, REAL_GUESTS)
        finished = held.enter_context(_closing_early(run_all(truth_jobs(), settings, show.update)))
        for result in finished:
            results.append(result)
            show.clear()
            print(f"{result.on}  {run_line(result)}", flush=True)
        found = list(comparisons(results, directory))
    if not found:
        raise CommandError("no scenario ran both simulated and on real guests")
    _print_all(["", *comparison_table(found, number_text)])
    return FAILED if any(one.holds is False for one in found) else 0


_COMMANDS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "list": _list,
    "show": _show,
    "run": _run,
    "sweep": _sweep,
    "pairs": _pairs,
    "report": _report,
    "compare": _compare,
    "validate": _validate,
}
