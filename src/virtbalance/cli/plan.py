"""``virt-balance plan``: what the vCPU scheduler would do now, and what that promises."""

import argparse
import json
import sys

from virtbalance.cli.arguments import period_s
from virtbalance.cli.options import (
    add_guests_arguments,
    add_policy_argument,
    settings_of,
    with_options,
)

WATCH_S = 12.0
"""As long as the estimator remembers: a plan knows no less than one of a program that runs."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_policy_argument(parser)
    add_guests_arguments(parser)
    parser.add_argument(
        "--watch",
        metavar="S",
        type=period_s,
        default=WATCH_S,
        help=f"seconds to look at the host before deciding (default: {WATCH_S:g})",
    )
    parser.add_argument("--json", action="store_true", help="the tick as one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Watch, decide once, change nothing; print the plan."""
    from virtbalance.cli.assembly import connected, dry_tick, role_maker
    from virtbalance.cpu.promise import entitlement_now, promise
    from virtbalance.model.cpu_estimate import CpuEstimate
    from virtbalance.telemetry.plan_json import plan_object
    from virtbalance.ui.plan import plan_lines

    settings = settings_of(arguments)
    program = with_options(settings.cpu, arguments)
    make_role = role_maker(program)
    with connected(settings.uri, dry_run=True) as hypervisor:
        if not arguments.json:
            print(f"watching for {arguments.watch:g} s", file=sys.stderr, flush=True)
        tick = dry_tick(hypervisor, make_role(hypervisor.host_id), program, arguments.watch)
    assert isinstance(tick.estimate, CpuEstimate)
    entitled = entitlement_now(tick.estimate)
    promised = promise(tick.estimate, entitled, tick.verdict.actions)
    if arguments.json:
        print(json.dumps(plan_object(tick, promised)))
    else:
        print("\n".join(plan_lines(tick, promised)))
    return 0
