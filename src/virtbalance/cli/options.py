"""Options that the two programs share, and the settings that come of them.

What a program needs to run is imported when it runs: ``--help`` must not wait for it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from virtbalance.cli.arguments import add_connection, count, period_s
from virtbalance.cli.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from virtbalance.control.settings import CpuSettings, MemorySettings, Settings

    AnySettings = TypeVar("AnySettings", CpuSettings, MemorySettings)


def add_program_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what both single programs take."""
    parser.add_argument(
        "period_s",
        metavar="PERIOD",
        type=period_s,
        nargs="?",
        help="seconds between decisions, fractions allowed (default: 1 for cpu, 2 for memory)",
    )
    add_policy_argument(parser)
    parser.add_argument(
        "--on-exit",
        choices=("restore", "keep"),
        help="what becomes of changes at the end (default: restore for cpu, keep for memory)",
    )
    add_common_arguments(parser)


def add_policy_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--policy``."""
    parser.add_argument(
        "--policy", metavar="NAME|FILE.py:CLASS", help="who decides (default: balance, fair)"
    )


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what every way to run a program takes."""
    add_guests_arguments(parser)
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--once", action="store_const", const=1, dest="ticks", help="one decision, then end"
    )
    length.add_argument("--ticks", metavar="N", type=count, help="so many decisions, then end")
    parser.add_argument(
        "--dry-run", action="store_true", help="decide and say what would be done, change nothing"
    )
    display = parser.add_mutually_exclusive_group()
    display.add_argument("--json", action="store_true", help="one JSON object a tick")
    display.add_argument(
        "--quiet", action="store_true", help="no tables: only what is done, and why"
    )


def add_guests_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what says which host and which of its guests, and where the settings are."""
    add_connection(parser)
    parser.add_argument("--config", metavar="FILE", type=Path, help="settings file (TOML)")
    parser.add_argument(
        "--include",
        metavar="PATTERN",
        action="append",
        help="serve only guests whose name matches (may be repeated)",
    )
    parser.add_argument(
        "--exclude",
        metavar="PATTERN",
        action="append",
        help="leave guests whose name matches alone (may be repeated)",
    )


def settings_of(arguments: argparse.Namespace) -> Settings:
    """Return the settings file's content, or the defaults, with the connection of the options."""
    from virtbalance.control.config import ConfigError, read_settings
    from virtbalance.control.settings import Settings

    try:
        settings = read_settings(arguments.config) if arguments.config else Settings()
    except ConfigError as error:
        raise UsageError(str(error)) from error
    return replace(settings, uri=arguments.uri) if arguments.uri else settings


def with_options(settings: AnySettings, arguments: argparse.Namespace) -> AnySettings:
    """Return a program's settings with what the options say on top."""
    from virtbalance.control.settings import OnExit

    chosen: dict[str, Any] = {
        name: value
        for name in ("period_s", "policy")
        if (value := getattr(arguments, name, None)) is not None
    }
    if on_exit := getattr(arguments, "on_exit", None):
        chosen["on_exit"] = OnExit(on_exit)
    for name in ("include", "exclude"):
        if patterns := getattr(arguments, name):
            chosen[name] = tuple(patterns)
    return replace(settings, **chosen)
