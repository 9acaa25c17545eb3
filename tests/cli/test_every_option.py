"""No option that no test ever uses."""

import argparse
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from virtbalance.cli.main import COMMANDS

TESTS = Path(__file__).parent.parent
TEXT = "\n".join(
    path.read_text(encoding="utf-8")
    for path in TESTS.rglob("*.py")
    if path.name != Path(__file__).name
)


def options_of(parser: argparse.ArgumentParser) -> Iterator[tuple[str, ...]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub_parser in action.choices.values():
                yield from options_of(sub_parser)
        elif action.option_strings and "--help" not in action.option_strings:
            yield tuple(action.option_strings)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_in_some_test(command: str) -> None:
    parser = argparse.ArgumentParser()
    importlib.import_module(COMMANDS[command].module).add_arguments(parser)
    unused = [
        names
        for names in options_of(parser)
        if not any(re.search(rf'["\s]{re.escape(name)}["=\s]', TEXT) for name in names)
    ]
    assert unused == []
