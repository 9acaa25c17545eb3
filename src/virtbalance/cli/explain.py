"""``virt-balance explain``: one guest, from the running programs' last ticks or a fresh look."""

import argparse
import json
from collections.abc import Iterable, Iterator
from typing import Any

from virtbalance.cli.arguments import add_connection
from virtbalance.cli.errors import CommandError
from virtbalance.cli.options import settings_of
from virtbalance.cli.status import last_ticks, of_this_version
from virtbalance.telemetry.outlook_json import with_outlook
from virtbalance.telemetry.tick_json import tick_object
from virtbalance.ui.explain import explain_lines, guest_names, guest_part


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("guest", metavar="GUEST", help="name or UUID")
    add_connection(parser)
    parser.add_argument("--fresh", action="store_true", help="look anew even if a program runs")
    parser.add_argument("--json", action="store_true", help="the facts as one JSON array")
    parser.set_defaults(config=None)


def run(arguments: argparse.Namespace) -> int:
    """Explain one guest."""
    looks = ([] if arguments.fresh else list(_from_running())) or list(_fresh(arguments))
    with of_this_version():
        told = list(_about(arguments.guest, looks))
    if not told:
        raise CommandError(f"there is no guest {arguments.guest!r}")
    if arguments.json:
        print(json.dumps([guest_part(tick, uuid) for tick, uuid, _ in told], indent=1))
        return 0
    tick, uuid, _ = told[0]
    print(f"{guest_names(tick)[uuid]} ({uuid})")
    with of_this_version():
        for tick, uuid, changes in told:
            print("\n".join(explain_lines(tick, uuid, changes)))
    return 0


_Look = tuple[dict[str, Any], dict[str, Any]]
"""A tick object, and the latest changes of all guests."""


def _about(guest: str, looks: Iterable[_Look]) -> Iterator[tuple[Any, str, Any]]:
    for look, changes in looks:
        for uuid, name in guest_names(look).items():
            if guest in (uuid, name):
                yield _complete(look, uuid), uuid, changes.get(uuid, {})


def _complete(look: dict[str, Any], uuid: str) -> dict[str, Any]:
    return with_outlook(look, uuid) if look["role"] == "cpu" else look


def _from_running() -> Iterator[_Look]:
    for document in last_ticks():
        if document["running"] and document["last_tick"]:
            yield document["last_tick"], document["last_changes"]


def _fresh(arguments: argparse.Namespace) -> Iterator[_Look]:
    """Let each program make one decision without consequences."""
    from virtbalance.cli.assembly import connected, dry_tick, role_maker

    settings = settings_of(arguments)
    for program in (settings.cpu, settings.memory):
        with connected(settings.uri, dry_run=True) as hypervisor:
            role = role_maker(program)(hypervisor.host_id)
            yield tick_object(dry_tick(hypervisor, role, program)), {}
