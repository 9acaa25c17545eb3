"""Scenarios with other settings: one for each point of a grid."""

import itertools
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from virtbalance.bench.schema import Scenario
from virtbalance.control.config import ConfigError

_OF_SCENARIO = frozenset({"period_s", "duration_s", "record_s", "measure_from_s"})


def parse_axes(texts: Sequence[str]) -> tuple[tuple[str, tuple[Any, ...]], ...]:
    """Return keys and values of ``key=v1,v2``, each key once. Raises ``ConfigError``."""
    axes = tuple(parse_axis(text) for text in texts)
    keys = [key for key, _ in axes]
    for key in keys:
        if keys.count(key) > 1:
            raise ConfigError(f"--set {key} is given twice; several values are KEY=VALUE,VALUE")
    return axes


def parse_axis(text: str) -> tuple[str, tuple[Any, ...]]:
    """Return key and values of ``key=v1,v2``. Raises ``ConfigError``."""
    key, equals, values = text.partition("=")
    if not equals or not key or not values:
        raise ConfigError(f"--set needs KEY=VALUE[,VALUE...], not {text!r}")
    return key.strip(), tuple(_value(value) for value in values.split(","))


def _value(text: str) -> Any:
    """Return a TOML value; what is none is a word."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()


def grid(
    scenarios: Sequence[Scenario], axes: Sequence[tuple[str, Sequence[Any]]]
) -> tuple[Scenario, ...]:
    """Return every scenario at every point."""
    keys = [key for key, _ in axes]
    points = list(itertools.product(*(values for _, values in axes)))
    return tuple(
        varied(scenario, dict(zip(keys, point, strict=True)))
        for scenario in scenarios
        for point in points
    )


def varied(scenario: Scenario, changes: Mapping[str, Any]) -> Scenario:
    """Return a scenario with other settings: its own fields, or a dotted path below ``[role]``.

    Its name says what is different.
    """
    fields: dict[str, Any] = {}
    settings: dict[str, Any] = dict(scenario.settings)
    for key, value in changes.items():
        if key in _OF_SCENARIO:
            fields[key] = value
        else:
            settings = _with(settings, key.removeprefix(f"{scenario.role}.").split("."), value)
    said = ",".join(f"{key}={value}" for key, value in changes.items())
    try:
        return replace(scenario, name=f"{scenario.name}@{said}", settings=settings, **fields)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{scenario.name}: {error}") from error


def _with(table: Mapping[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    first, *rest = path
    if not rest:
        return {**table, first: value}
    inner = table.get(first, {})
    return {**table, first: _with(inner if isinstance(inner, Mapping) else {}, rest, value)}
