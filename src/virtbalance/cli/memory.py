"""``virt-balance memory`` and ``memory_coordinator``: divide memory until stopped."""

import argparse

from virtbalance.cli.options import add_program_arguments, settings_of, with_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_program_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Work until stopped; return the exit code."""
    from virtbalance.cli.assembly import run_programs

    settings = settings_of(arguments)
    return run_programs(settings.uri, [with_options(settings.memory, arguments)], arguments)
