"""Scenarios by name: the built-in ones, groups of them by tag, and a user's own files."""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources
from pathlib import Path

from virtbalance.bench.reading import read_scenarios
from virtbalance.bench.schema import Scenario
from virtbalance.bench.traces import available
from virtbalance.control.config import ConfigError

NEEDS_TRACES = "needs-traces"
"""A tag; ``all`` leaves such scenarios out where the public traces are not there."""


def built_in() -> tuple[Scenario, ...]:
    """Return all built-in scenarios, sorted by file name."""
    return tuple(scenario for path in _files() for scenario in _read(path))


def find(references: Sequence[str]) -> tuple[Scenario, ...]:
    """Return the scenarios meant, each once. Raises ``ConfigError`` for one that means nothing.

    A reference is a file (``my.toml``), a name (``c1``), a name with shape and period
    (``c1/8-on-4/1s``), a pattern (``p1*``), a tag (``acceptance``), or ``all``; except for files,
    in capitals or not.
    """
    found: dict[str, Scenario] = {}
    for reference in references:
        matching = tuple(_matching(reference))
        if not matching:
            raise ConfigError(f"no scenario {reference!r}; 'virt-balance bench list' shows them")
        found.update({scenario.name: scenario for scenario in matching})
    return tuple(found.values())


def _matching(reference: str) -> Iterator[Scenario]:
    if reference.endswith(".toml"):
        yield from read_scenarios(Path(reference))
        return
    reference = reference.lower()
    for scenario in built_in():
        file, _, _ = scenario.name.partition("/")
        named = any(
            fnmatchcase(scenario.name, pattern) for pattern in (reference, f"{reference}/*")
        )
        if reference == "all" and NEEDS_TRACES in scenario.tags and not available():
            continue
        if reference == "all" or named or reference in (file, *scenario.tags, scenario.role):
            yield scenario


def _files() -> tuple[Path, ...]:
    folder = Path(str(resources.files("virtbalance.bench"))) / "scenarios"
    return tuple(sorted(folder.glob("*.toml")))


@cache
def _read(path: Path) -> tuple[Scenario, ...]:
    return read_scenarios(path)


def source_of(references: Sequence[str], name: str) -> str:
    """Return the text of the file that a scenario of this name came from."""
    paths = [Path(reference) for reference in references if reference.endswith(".toml")]
    found = next(path for path in (*paths, *_files()) if path.stem == name)
    return found.read_text(encoding="utf-8")
