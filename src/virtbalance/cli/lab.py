"""``virt-balance lab``: real guests on a running libvirtd, to try the programs and virsh on."""

from __future__ import annotations

import argparse
import math
import sys
import time
from typing import TYPE_CHECKING

from virtbalance.cli.arguments import add_connection, count
from virtbalance.cli.errors import CommandError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from virtbalance.lab import CpuLoad, Guest, Report

_STATUS_S = 1.0
"""How long `status` watches the guests count."""
_ANSWER_S = 10.0
_DEFAULT_RATE_MIB_S = 16.0
_ALL = "all"
_TO_THE_LIMIT = "max"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    commands = parser.add_subparsers(dest="lab_command", metavar="COMMAND", required=True)
    _add_up(commands.add_parser("up", help="start guests and leave them running"))
    down = commands.add_parser("down", help="end the guests and remove what they needed")
    add_connection(down)
    _add_load(commands.add_parser("load", help="tell a guest what to do"))
    status = commands.add_parser("status", help="what the guests do, and get done")
    add_connection(status)


def _add_up(parser: argparse.ArgumentParser) -> None:
    add_connection(parser)
    parser.add_argument(
        "--guests", type=count, default=4, metavar="N", help="how many (default: 4)"
    )
    parser.add_argument(
        "--vcpus", type=count, default=1, metavar="N", help="vCPUs of each (default: 1)"
    )
    parser.add_argument(
        "--maximum",
        type=count,
        default=512,
        metavar="MIB",
        help="memory a guest can grow to (default: 512)",
    )
    parser.add_argument(
        "--memory", type=count, metavar="MIB", help="memory at start (default: the maximum)"
    )
    parser.add_argument(
        "--name",
        default="lab",
        metavar="NAME",
        help="guests are NAME-1, NAME-2, ... (default: lab)",
    )
    parser.add_argument(
        "--zram", type=count, default=0, metavar="MIB", help="swap on compressed memory"
    )


def _add_load(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("guest", metavar="GUEST", help=f"name, or {_ALL!r}")
    add_connection(parser)
    parser.add_argument("--vcpu", type=int, metavar="N", help="load this vCPU only (default: all)")
    cpu = parser.add_mutually_exclusive_group()
    cpu.add_argument(
        "--duty", type=_percent, metavar="PERCENT", help="busy for a share of every 20 ms"
    )
    cpu.add_argument("--count", type=count, metavar="N", help="count to N, sleep 400 us, for ever")
    cpu.add_argument("--hog", action="store_true", help="count without a pause")
    cpu.add_argument(
        "--burst",
        type=_milliseconds,
        nargs=2,
        metavar=("BUSY_MS", "IDLE_MS"),
        help="busy and idle in turn",
    )
    cpu.add_argument("--idle", action="store_true", help="no load")
    memory = parser.add_mutually_exclusive_group()
    memory.add_argument(
        "--allocate",
        type=_mib,
        metavar="MIB",
        help=f"take memory up to this, or {_TO_THE_LIMIT!r}: until 48 MiB are left",
    )
    memory.add_argument("--hold", action="store_true", help="take no more, keep what is held")
    memory.add_argument("--free", action="store_true", help="give all memory back")
    parser.add_argument(
        "--rate",
        type=_rate,
        metavar="MIB_S",
        help=f"how fast to take memory (default: {_DEFAULT_RATE_MIB_S:g} MiB/s)",
    )
    parser.add_argument(
        "--then-free",
        action="store_true",
        help="give all memory back when there is no more to take",
    )


def run(arguments: argparse.Namespace) -> int:
    """Do what was asked; return the exit code."""
    from virtbalance.lab import LabError

    if arguments.lab_command == "load":
        _check_load(arguments)
    command = {"up": _up, "down": _down, "load": _load, "status": _status}[arguments.lab_command]
    try:
        command(arguments)
    except LabError as error:
        raise CommandError(str(error)) from error
    return 0


def _up(arguments: argparse.Namespace) -> None:
    from virtbalance.lab import GuestSpec, Lab, LabError

    try:
        specs = [
            GuestSpec(
                name=f"{arguments.name}-{number}",
                vcpus=arguments.vcpus,
                maximum_mib=arguments.maximum,
                current_mib=arguments.memory,
                zram_mib=arguments.zram,
            )
            for number in range(1, arguments.guests + 1)
        ]
    except LabError as error:
        raise UsageError(str(error)) from error
    with Lab.on(arguments.uri, _say) as lab:
        guests = lab.start(specs)
        lab.keep()
    print(f"up: {' '.join(guest.name for guest in guests)}")


def _down(arguments: argparse.Namespace) -> None:
    from virtbalance.lab import end_kept

    ended = end_kept(arguments.uri, _say)
    print(f"down: {ended} guests ended" if ended else "down: there were no guests")


def _load(arguments: argparse.Namespace) -> None:
    for guest in _chosen(arguments.uri, arguments.guest):
        load = _cpu_load(arguments)
        if load is not None:
            guest.load_cpu(arguments.vcpu, load)
        if arguments.allocate is not None:
            guest.allocate(
                None if math.isinf(arguments.allocate) else arguments.allocate,
                arguments.rate or _DEFAULT_RATE_MIB_S,
                then_free=arguments.then_free,
            )
        elif arguments.hold:
            guest.hold()
        elif arguments.free:
            guest.free()


def _status(arguments: argparse.Namespace) -> None:
    guests = _chosen(arguments.uri, _ALL)
    before = _reports(guests)
    time.sleep(_STATUS_S)
    after = _reports(guests)
    row = "{:<16} {:<20} {:>10} {:>10} {:>8} {:>8} {:>8}  {}"
    print(row.format("GUEST", "LOAD", "MCOUNT/S", "BALLOONED", "TOTAL", "FREE", "HELD", "MEMORY"))
    for guest, old, new in zip(guests, before, after, strict=True):
        if old is None or new is None:
            print(f"{guest.name:<16} does not answer")
            continue
        print(row.format(guest.name, *_figures(old, new)))


def _figures(old: Report, new: Report) -> list[str]:
    """Return a guest's figures: millions of counts a second, sizes in MiB."""
    elapsed_us = (new.monotonic_ns - old.monotonic_ns) / 1e3
    now = new.memory.now
    return [
        ",".join(cpu.load for cpu in new.cpus),
        f"{(new.iterations - old.iterations) / elapsed_us:.1f}",
        f"{now.ballooned_kib // 1024}",
        f"{now.total_kib // 1024}",
        f"{now.available_kib // 1024}",
        f"{new.memory.held_kib // 1024}",
        new.memory.outcome,
    ]


def _reports(guests: Sequence[Guest]) -> list[Report | None]:
    return [_report(guest) for guest in guests]


def _report(guest: Guest) -> Report | None:
    from virtbalance.lab import LabError

    try:
        return guest.report(_ANSWER_S)
    except LabError:
        return None


def _chosen(uri: str | None, name: str) -> list[Guest]:
    from virtbalance.lab import kept_guests

    guests = kept_guests(uri)
    if not guests:
        raise CommandError("no guests of the lab are running (see virt-balance lab up)")
    chosen = [guest for guest in guests if name in (guest.name, _ALL)]
    if not chosen:
        names = ", ".join(guest.name for guest in guests)
        raise CommandError(f"no guest {name!r} in the lab; there are: {names}")
    return chosen


def _check_load(arguments: argparse.Namespace) -> None:
    if arguments.allocate is None and (arguments.rate or arguments.then_free):
        raise UsageError("--rate and --then-free go with --allocate")
    cpu = _cpu_load(arguments) is not None
    if arguments.vcpu is not None and not cpu:
        raise UsageError("--vcpu goes with --duty, --count, --hog, --burst or --idle")
    if not (cpu or arguments.allocate is not None or arguments.hold or arguments.free):
        raise UsageError("no load given (see virt-balance lab load --help)")


def _cpu_load(arguments: argparse.Namespace) -> CpuLoad | None:
    from virtbalance.lab import Burst, CountAndSleep, Duty, Hog, Off

    if arguments.duty is not None:
        return Duty(arguments.duty)
    if arguments.count is not None:
        return CountAndSleep(arguments.count)
    if arguments.burst is not None:
        return Burst(*arguments.burst)
    if arguments.hog:
        return Hog()
    return Off() if arguments.idle else None


def _percent(text: str) -> float:
    return _number(text, 0.0, 100.0, "percent")


def _milliseconds(text: str) -> float:
    return _number(text, 0.001, 1e6, "milliseconds")


def _rate(text: str) -> float:
    return _number(text, 0.001, 1e6, "MiB a second")


def _mib(text: str) -> float:
    return math.inf if text == _TO_THE_LIMIT else _number(text, 1.0, 1e9, "MiB")


def _number(text: str, least: float, most: float, unit: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"must be {least:g} to {most:g} {unit}, not {text!r}")
    return value


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
