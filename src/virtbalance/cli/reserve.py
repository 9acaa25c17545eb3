"""``virt-balance reserve``: have memory freed for a guest that is to be started, and kept free.

The running memory coordinator does the work; this command tells it how much, for as long as it
runs. So memory can't stay reserved by accident, however this command ends.
"""

import argparse
import contextlib
import math
import shlex
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from virtbalance.cli.arguments import add_connection, seconds, size_kib
from virtbalance.cli.errors import CommandError, UsageError
from virtbalance.cli.status import read_last_tick
from virtbalance.control.paths import run_directory
from virtbalance.control.reservations import Reservations
from virtbalance.model.guest import RoleName
from virtbalance.model.reservation import Reservation
from virtbalance.telemetry.last_tick import last_tick_path
from virtbalance.ui.reserve import obstacle_lines, progress_line
from virtbalance.ui.text import mib

_POLL_S = 0.2

Document = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("size_kib", metavar="SIZE", type=size_kib, help="such as 4GiB")
    add_connection(parser)
    parser.add_argument(
        "--timeout",
        metavar="S",
        type=seconds,
        default=60.0,
        help="give up after so many seconds (default: 60)",
    )
    parser.add_argument(
        "--then",
        metavar="COMMAND",
        type=_words,
        help="run this once the memory is free, and give back what is left when it ends "
        "(default: hold it until a new guest has come, or Ctrl-C)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Reserve, wait, and hold; return 0, or the command's exit code."""
    if not arguments.size_kib:
        raise UsageError("a reservation must be larger than 0")
    coordinator = _Coordinator(_host_directory(arguments.uri))
    present = frozenset(guest["uuid"] for guest in coordinator.latest()["guests"])
    with contextlib.ExitStack() as stack:
        held = coordinator.reservations.held(Reservation(arguments.size_kib, present))
        try:
            stack.enter_context(held)
        except OSError as error:
            raise CommandError(f"{error.filename}: {error.strerror}") from error
        _await_free(coordinator, arguments.timeout)
        if arguments.then:
            return _run_command(arguments.then)
        _await_guest(coordinator, present)
    return 0


def _words(text: str) -> list[str]:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error
    if not words:
        raise argparse.ArgumentTypeError("there is no command")
    return words


def _host_directory(uri: str | None) -> Path:
    from virtbalance.cli.assembly import connected

    with connected(uri, dry_run=True) as hypervisor:
        return run_directory() / hypervisor.host_id


class _Coordinator:
    """The running memory coordinator of a host, seen through its last tick."""

    def __init__(self, directory: Path) -> None:
        self.reservations = Reservations(directory)
        self._path = last_tick_path(directory.parent, directory.name, RoleName.MEMORY)

    def latest(self) -> Document:
        """Return its last tick. ``CommandError`` if no coordinator works here."""
        try:
            document = read_last_tick(self._path) if self._path.exists() else None
        except CommandError:
            document = None
        if document is None or not document["running"] or document["last_tick"] is None:
            raise CommandError("no memory_coordinator runs on this host, which would free memory")
        if document["dry_run"]:
            raise CommandError("the memory_coordinator of this host is a dry run: it frees nothing")
        tick: Document = document["last_tick"]
        return tick

    def ticks(self, until_s: float = math.inf) -> Iterator[Document]:
        """Yield the ticks that begin from now on, until a monotonic time."""
        former_s = time.monotonic()
        while time.monotonic() < until_s:
            tick = self.latest()
            if tick["monotonic_s"] > former_s:
                former_s = tick["monotonic_s"]
                yield tick
            time.sleep(_POLL_S)


def _await_free(coordinator: _Coordinator, timeout_s: float) -> None:
    """Report progress until all is free. ``CommandError`` with all obstacles if it never is."""
    tick, said = None, ""
    for tick in coordinator.ticks(time.monotonic() + timeout_s):
        line = progress_line(tick)
        if line != said:
            print(line, flush=True)
            said = line
        if tick["host"]["reserved_free_kib"] >= tick["host"]["reserved_kib"]:
            return
    if tick is None:
        raise CommandError(f"the memory_coordinator has not looked for {timeout_s:g} s")
    host = tick["host"]
    missing_kib = host["reserved_kib"] - host["reserved_free_kib"]
    text = f"{mib(missing_kib)} of {mib(host['reserved_kib'])} MiB can't be freed"
    raise CommandError("\n".join([f"{text} within {timeout_s:g} s", *obstacle_lines(tick)]))


def _run_command(command: Sequence[str]) -> int:
    """Run the user's command to its end; return its exit code as a shell would."""
    try:
        code = subprocess.run(command, check=False).returncode
    except OSError as error:
        raise CommandError(f"{command[0]}: {error.strerror}") from error
    return code if code >= 0 else 128 - code


def _await_guest(coordinator: _Coordinator, present: frozenset[str]) -> None:
    """Hold the reservation until a new guest is there or the user ends it."""
    try:
        print("kept free until a new guest has come, or Ctrl-C", flush=True)
        for tick in coordinator.ticks():
            for guest in tick["guests"]:
                if guest["uuid"] not in present:
                    print(f"{guest['name']} has come; what it does not use is given back")
                    return
    except KeyboardInterrupt:
        print("given back")
