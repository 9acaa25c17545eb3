"""``virt-balance run``: both programs in one process."""

import argparse
from dataclasses import replace

from virtbalance.cli.arguments import period_s
from virtbalance.cli.options import add_common_arguments, settings_of, with_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_common_arguments(parser)
    for role, default in (("cpu", 1), ("memory", 2)):
        parser.add_argument(
            f"--{role}-period",
            metavar="S",
            type=period_s,
            help=f"seconds between decisions of the {role} program (default: {default})",
        )


def run(arguments: argparse.Namespace) -> int:
    """Work until stopped; return the exit code."""
    from virtbalance.cli.assembly import run_programs

    settings = settings_of(arguments)
    cpu = with_options(settings.cpu, arguments)
    memory = with_options(settings.memory, arguments)
    if arguments.cpu_period is not None:
        cpu = replace(cpu, period_s=arguments.cpu_period)
    if arguments.memory_period is not None:
        memory = replace(memory, period_s=arguments.memory_period)
    return run_programs(settings.uri, [cpu, memory], arguments)
