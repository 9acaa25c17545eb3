"""Settings files: every mistake at once, each with its path."""

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from virtbalance.control.config import ConfigError, policy_config, read_settings
from virtbalance.control.settings import OnExit, Settings


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "settings.toml"
    path.write_text(text)
    return path


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    assert read_settings(write(tmp_path, "")) == Settings()


def test_values_reach_their_fields(tmp_path: Path) -> None:
    settings = read_settings(
        write(
            tmp_path,
            """
            uri = "qemu:///session"
            [cpu]
            period_s = 0.5
            on_exit = "keep"
            exclude = ["db*"]
            [memory]
            stats_period_s = 2
            """,
        )
    )
    assert settings.uri == "qemu:///session"
    assert settings.cpu.period_s == 0.5
    assert settings.cpu.on_exit is OnExit.KEEP
    assert settings.cpu.exclude == ("db*",)
    assert settings.memory.stats_period_s == 2


def test_all_mistakes_are_reported_at_once_with_their_paths(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        colour = "red"
        [cpu]
        period_s = "often"
        on_exit = "leave"
        [memory]
        perod_s = 1
        """,
    )
    with pytest.raises(ConfigError) as caught:
        read_settings(path)
    lines = str(caught.value).splitlines()
    assert len(lines) == 4
    for line in lines:
        assert line.startswith(f"{path}: ")
    text = str(caught.value)
    assert "colour: unknown key" in text
    assert "memory.perod_s: unknown key" in text
    assert "cpu.period_s: input should be a valid number" in text
    assert "cpu.on_exit: input should be 'restore' or 'keep'" in text


def test_a_value_out_of_range_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cpu: period_s must be .* not 0\.0"):
        read_settings(write(tmp_path, "[cpu]\nperiod_s = 0"))


def test_what_is_not_toml_or_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"settings\.toml: .*line 1"):
        read_settings(write(tmp_path, "cpu = 1 2"))
    with pytest.raises(ConfigError, match=r"none\.toml: No such file"):
        read_settings(tmp_path / "none.toml")


@dataclass(frozen=True)
class Config:
    gain_ratio: float = 0.5


class WithConfig:
    name = "with"
    Config = Config


class Without:
    name = "without"


def test_a_policys_own_settings() -> None:
    assert policy_config(WithConfig, {}, "x") == Config()
    assert policy_config(WithConfig, {"gain_ratio": 0.25}, "x") == Config(0.25)
    assert policy_config(Without, {}, "x") is None
    with pytest.raises(ConfigError, match=r"cpu\.policies\.with: gain: unknown key"):
        policy_config(WithConfig, {"gain": 1}, "cpu.policies.with")
    with pytest.raises(ConfigError, match="policy 'without' has no settings"):
        policy_config(Without, {"gain": 1}, "x")


def keys_of(kind: type[Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every key of the settings file with its default."""
    for field in dataclasses.fields(kind):
        hint = get_type_hints(kind)[field.name]
        if dataclasses.is_dataclass(hint):
            assert isinstance(hint, type)
            yield from keys_of(hint, (*path, field.name))
        elif field.name != "policies":
            yield (*path, field.name), getattr(kind(), field.name)


def another(value: Any) -> Any:
    """Return a legal value that is not this default."""
    match value:
        case bool():
            return not value
        case StrEnum():
            return next(str(other) for other in type(value) if other is not value)
        case int():
            return value + 1
        case float():
            return value * 0.99 if value else 0.01
        case tuple():
            return ["x*"]
        case str():
            return "hold"
        case None:
            return 1
    raise AssertionError(f"no idea of another {value!r}")


@pytest.mark.parametrize(
    ("path", "default"),
    tuple(keys_of(Settings)),
    ids=lambda value: ".".join(value) if isinstance(value, tuple) else "-",
)
def test_every_key_reaches_its_field(tmp_path: Path, path: tuple[str, ...], default: Any) -> None:
    table, key = path[:-1], path[-1]
    value = "test:///default" if key == "uri" else another(default)
    header = f"[{'.'.join(table)}]\n" if table else ""
    found: Any = read_settings(write(tmp_path, f"{header}{key} = {json.dumps(value)}\n"))
    for name in path:
        found = getattr(found, name)
    assert found == (tuple(value) if isinstance(value, list) else value)
    assert found != default
