"""Reading scenario files: one file holds all shapes of a case, each at every period.

A file is TOML: the tables of ``schema.py``, and besides them

- ``parameters``: names and values for expressions (``expressions.py``);
- ``shapes``: parameters that differ from shape to shape, each with a ``name``;
- ``periods_s``: every shape is run at each of these;
- in ``guests``: ``count`` makes so many of one entry, ``i`` counts them from 0.

Every mistake is reported with its file and path.
"""

import itertools
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from virtbalance.bench.expressions import ExpressionError, substitute
from virtbalance.bench.schema import (
    LOADS,
    WANTS,
    CriterionTable,
    EventTable,
    GuestTable,
    HostTable,
    Scenario,
    TraceTable,
)
from virtbalance.control.config import ConfigError, validated

_PLAIN = "plain"


def read_scenarios(path: Path, name: str | None = None) -> tuple[Scenario, ...]:
    """Return every shape of a file at every period. Raises ``ConfigError``."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    return scenarios_of(document, name or path.stem, str(path))


def scenarios_of(document: Mapping[str, Any], name: str, where: str) -> tuple[Scenario, ...]:
    """Return the scenarios of a file's content; ``where`` names it for messages."""
    document = dict(document)
    parameters = dict(document.pop("parameters", {}))
    shapes = document.pop("shapes", [{"name": _PLAIN}])
    periods_s = document.pop("periods_s", None)
    if periods_s is None:
        periods_s = [document.pop("period_s", 1.0)]
    found = []
    for shape, period_s in itertools.product(shapes, periods_s):
        if not isinstance(shape, Mapping) or "name" not in shape:
            raise ConfigError(f"{where}: shapes: each needs a name")
        known = {**parameters, **shape, "period_s": period_s}
        full = "/".join((name, str(shape["name"]), f"{period_s:g}s"))
        found.append(_scenario(document, known, full, where))
    if len({scenario.name for scenario in found}) < len(found):
        raise ConfigError(f"{where}: shapes: two have the same name")
    return tuple(found)


def _scenario(
    document: Mapping[str, Any], parameters: Mapping[str, Any], name: str, where: str
) -> Scenario:
    where = f"{where} ({name})"
    values: dict[str, Any] = {"period_s": parameters["period_s"], "name": name}
    for key, value in document.items():
        if key == "guests":
            values[key] = tuple(_guests(value, parameters, where))
        elif key == "events":
            values[key] = tuple(
                _built(EventTable, table, parameters, f"{where}: events.{number}")
                for number, table in enumerate(_tables(value, f"{where}: events"))
            )
        elif key == "criteria":
            values[key] = tuple(
                _built(CriterionTable, table, parameters, f"{where}: criteria.{number}")
                for number, table in enumerate(_tables(value, f"{where}: criteria"))
            )
        elif key in _SINGLE:
            values[key] = _built(_SINGLE[key], value, parameters, f"{where}: {key}")
        else:
            values[key] = _computed(value, parameters, f"{where}: {key}")
    return validated(Scenario, values, where)


_SINGLE: Mapping[str, type[Any]] = {"host": HostTable, "trace": TraceTable}


def _guests(value: Any, parameters: Mapping[str, Any], where: str) -> Iterator[GuestTable]:
    for number, given in enumerate(_tables(value, f"{where}: guests")):
        place = f"{where}: guests.{number}"
        table = dict(given)
        count = _computed(table.pop("count", 1), parameters, f"{place}.count")
        if not isinstance(count, int) or count < 0:
            raise ConfigError(f"{place}.count: a whole number is needed, not {count!r}")
        name = str(table.get("name", "g"))
        for i in range(count):
            table["name"] = name if count == 1 else f"{name}{i}"
            yield _built(GuestTable, table, {**parameters, "i": i}, place)


def _built(kind: type[Any], table: Any, parameters: Mapping[str, Any], where: str) -> Any:
    """Return a record of a table, with the loads and wants in it built by their kind."""
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where}: a table is needed")
    values = _computed(table, parameters, where)
    return validated(kind, _with_kinds(values, where), where)


def _with_kinds(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    built: dict[str, Any] = {}
    for key, value in values.items():
        kinds = _KINDS.get(key)
        if kinds is not None and isinstance(value, Mapping):
            built[key] = _of_kind(kinds, value, f"{where}.{key}")
        elif isinstance(value, Mapping) and key == "memory":
            built[key] = _with_kinds(value, f"{where}.{key}")
        else:
            built[key] = value
    return built


_KINDS: Mapping[str, Mapping[str, type[Any]]] = {
    "load": LOADS,
    "other_work": LOADS,
    "want": WANTS,
    "other": WANTS,
}


def _of_kind(kinds: Mapping[str, type[Any]], table: Mapping[str, Any], where: str) -> Any:
    values = dict(table)
    kind = values.pop("kind", None)
    if kind not in kinds:
        raise ConfigError(f"{where}.kind: one of {', '.join(kinds)} is needed, not {kind!r}")
    return validated(kinds[kind], values, where)


def _computed(value: Any, parameters: Mapping[str, Any], where: str) -> Any:
    try:
        return substitute(value, parameters)
    except ExpressionError as error:
        raise ConfigError(f"{where}: {error}") from error


def _tables(value: Any, where: str) -> Sequence[Mapping[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        raise ConfigError(f"{where}: a list of tables is needed")
    return value
