"""The commands: finds the sub-command, imports only that one, and turns errors into exit codes."""

import importlib
import io
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType, ModuleType
from typing import NamedTuple

import virtbalance
from virtbalance.cli.arguments import OneLineParser
from virtbalance.cli.errors import CommandError, UsageError
from virtbalance.cli.signals import ending_signals, let_the_next_kill

FAILURE = 1
USAGE = 2
INTERRUPTED = 130


class Command(NamedTuple):
    """Where a sub-command lives, and its line in ``--help``."""

    module: str
    help: str


COMMANDS = {
    "cpu": Command("virtbalance.cli.cpu", "place vCPUs, until stopped (vcpu_scheduler)"),
    "memory": Command(
        "virtbalance.cli.memory", "divide memory, until stopped (memory_coordinator)"
    ),
    "run": Command("virtbalance.cli.run", "both programs in one process"),
    "status": Command("virtbalance.cli.status", "what the running programs do and see"),
    "explain": Command("virtbalance.cli.explain", "one guest: what it gets, wants, may have; why"),
    "plan": Command("virtbalance.cli.plan", "what the vCPU scheduler would do, and what it gains"),
    "set": Command("virtbalance.cli.set", "weight, limits and exclusion of one guest"),
    "reserve": Command("virtbalance.cli.reserve", "free memory for a guest to be started"),
    "restore": Command("virtbalance.cli.restore", "put back what a run has changed"),
    "lab": Command("virtbalance.cli.lab", "real guests on demand, with a load to command"),
    "demo": Command("virtbalance.cli.demo", "four real guests, served for a minute"),
    "bench": Command("virtbalance.cli.bench", "compare policies on simulated and real hosts"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """``virt-balance``."""
    _prepare_streams()
    words = sys.argv[1:] if arguments is None else list(arguments)
    chosen = next((word for word in words if not word.startswith("-")), None)
    parser = OneLineParser(
        prog="virt-balance", description="Keeps the guests of a KVM host fairly served."
    )
    parser.add_argument("--version", action="version", version=virtbalance.__version__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    module, chosen_parser = None, parser
    for name, command in COMMANDS.items():
        sub_parser = commands.add_parser(name, help=command.help, description=command.help)
        if name == chosen:
            module, chosen_parser = importlib.import_module(command.module), sub_parser
            module.add_arguments(sub_parser)
    parsed, unknown = parser.parse_known_args(words)
    if unknown:  # said by the command, whose help lists what there is
        chosen_parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    assert module is not None, "argparse lets only known commands through"
    return _run(module, parsed, f"virt-balance {parsed.command}")


def vcpu_scheduler() -> int:
    """``vcpu_scheduler PERIOD``."""
    return _program("vcpu_scheduler", "cpu")


def memory_coordinator() -> int:
    """``memory_coordinator PERIOD``."""
    return _program("memory_coordinator", "memory")


def _program(name: str, command: str) -> int:
    _prepare_streams()
    module = importlib.import_module(COMMANDS[command].module)
    parser = OneLineParser(prog=name, description=COMMANDS[command].help)
    module.add_arguments(parser)
    return _run(module, parser.parse_args(), name)


def _run(module: ModuleType, parsed: object, name: str) -> int:
    for number in ending_signals():  # a shell's background job ignores the first
        signal.signal(number, _interrupt)
    try:
        code = module.run(parsed)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except UsageError as error:
        return _fail(name, error, USAGE)
    except CommandError as error:
        return _fail(name, error, FAILURE)
    except BrokenPipeError:  # whoever read our output is gone
        _drop_output()
        return FAILURE
    except OSError as error:  # such as a full disk under our output
        _drop_output()
        where = f"{error.filename}: " if error.filename else ""
        return _fail(name, f"{where}{error.strerror or error}", FAILURE)
    else:
        assert isinstance(code, int)
        return code


def _interrupt(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001 - signal's signature
    """End what has no handler of its own as Ctrl-C does: by unwinding, so that all is put back."""
    let_the_next_kill(signum)
    raise KeyboardInterrupt


def _prepare_streams() -> None:
    """Have streams that take whatever we print.

    What was closed at the start is opened on /dev/null, before a file or a socket takes its place;
    what the locale has no character for is replaced.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def _drop_output() -> None:
    """Send what is still to be written nowhere, or the interpreter complains at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(name: str, error: object, code: int) -> int:
    for line in str(error).splitlines():
        print(f"{name}: {line}", file=sys.stderr)
    return code
