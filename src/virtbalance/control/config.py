"""Reading a settings file: every mistake reported at once, each with its path.

The file is TOML; its tables and keys are the fields of ``control.settings.Settings``. A policy's
own settings stand under ``[cpu.policies.NAME]`` or ``[memory.policies.NAME]``.
"""

import dataclasses
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_type_hints

from virtbalance.control.settings import Settings

if TYPE_CHECKING:
    from pydantic import TypeAdapter

Table = TypeVar("Table")


class ConfigError(Exception):
    """The settings can't be used; one line a mistake."""


def read_settings(path: Path) -> Settings:
    """Return the settings of a TOML file. Raises ``ConfigError``."""
    try:
        with path.open("rb") as file:
            document = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    return validated(Settings, document, str(path))


def policy_config(policy_class: type[Any], values: Mapping[str, Any], where: str) -> Any:
    """Return an instance of a policy's ``Config`` with these values; ``None`` if it has none.

    ``where`` names the source for messages. Raises ``ConfigError``.
    """
    config_type = getattr(policy_class, "Config", None)
    if config_type is None:
        if values:
            raise ConfigError(f"{where}: policy {policy_class.name!r} has no settings")
        return None
    return validated(config_type, values, where) if values else config_type()


def check_policy_tables(names: Iterable[str], known: Iterable[str], where: str) -> None:
    """Raise ``ConfigError`` if there are settings of a policy that does not exist."""
    known = tuple(dict.fromkeys(known))
    unknown = [name for name in names if name not in known]
    if unknown:
        there_are = f"there is no such policy; there are: {', '.join(known)}"
        raise ConfigError("\n".join(f"{where}.{name}: {there_are}" for name in unknown))


def validated(kind: type[Table], values: Mapping[str, Any], where: str) -> Table:
    """Return a dataclass made of a TOML table. Raises ``ConfigError`` with every mistake in it."""
    import pydantic

    try:
        table: Table = _adapter(kind).validate_python(dict(values))
    except pydantic.ValidationError as error:
        lines = (
            f"{where}: {'.'.join(map(str, mistake['loc'])) or 'settings'}: {_wording(mistake)}"
            for mistake in error.errors()
        )
        raise ConfigError("\n".join(lines)) from error
    return table


def _adapter(kind: type[Any]) -> "TypeAdapter[Any]":
    """Return the kind's validator; made once, because that takes milliseconds."""
    import pydantic

    if kind not in _ADAPTERS:
        _forbid_unknown_keys(kind)
        _ADAPTERS[kind] = pydantic.TypeAdapter(kind)
    return _ADAPTERS[kind]


_ADAPTERS: dict[type[Any], "TypeAdapter[Any]"] = {}


def _wording(mistake: Mapping[str, Any]) -> str:
    message = str(mistake["msg"]).removeprefix("Value error, ")
    if mistake["type"] in {"unexpected_keyword_argument", "extra_forbidden"}:
        return "unknown key"
    if mistake["type"] in _KINDS:
        return _KINDS[mistake["type"]]
    return f"{message[:1].lower()}{message[1:]}"


_KINDS: Mapping[str, str] = {
    "dataclass_type": "must be a table",
    "dict_type": "must be a table",
    "mapping_type": "must be a table",
    "tuple_type": "must be a list",
}
"""What pydantic says in Python's terms, in TOML's."""


def _forbid_unknown_keys(kind: type[Any]) -> None:
    """Tell pydantic so for a dataclass and all within it: its default is to ignore them."""
    kind.__pydantic_config__ = {"extra": "forbid"}
    for hint in get_type_hints(kind).values():
        for part in (hint, *get_args(hint)):
            if dataclasses.is_dataclass(part) and isinstance(part, type):
                _forbid_unknown_keys(part)
