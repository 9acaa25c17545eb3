"""``virt-balance restore``: put back by hand what a run has changed."""

import argparse

from virtbalance.cli.arguments import add_connection
from virtbalance.cli.assembly import connected, role_maker
from virtbalance.cli.errors import CommandError
from virtbalance.cli.options import settings_of
from virtbalance.control.instance import AlreadyRunningError, InstanceLock
from virtbalance.control.journal import Journal, JournalError
from virtbalance.control.paths import run_directory, state_directory
from virtbalance.control.recovery import put_back
from virtbalance.model.errors import HypervisorError
from virtbalance.model.guest import RoleName

_DEADLINE_S = 10.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_connection(parser)
    parser.add_argument(
        "--only",
        type=RoleName,
        choices=list(RoleName),
        help="put back affinities (cpu) or balloons (memory) only",
    )
    parser.set_defaults(config=None)


def run(arguments: argparse.Namespace) -> int:
    """Put guests back; exit code 1 if one could not be."""
    settings = settings_of(arguments)
    complete = True
    with connected(settings.uri, dry_run=False) as hypervisor:
        journal = Journal(state_directory() / hypervisor.host_id, hypervisor.boot_id)
        for program in (settings.cpu, settings.memory):
            role = role_maker(program)(hypervisor.host_id)
            if arguments.only not in (None, role.name):
                continue
            lock_path = run_directory() / hypervisor.host_id / f"{role.name}.lock"
            try:
                with InstanceLock(lock_path, f"the {role.name} program"):
                    recovery = put_back(
                        hypervisor, role, journal, keep=False, deadline_s=_DEADLINE_S
                    )
            except AlreadyRunningError as error:
                raise CommandError(f"{error}; it puts guests back itself when it ends") from error
            except (HypervisorError, JournalError) as error:
                raise CommandError(str(error)) from error
            for event in recovery.events:
                print(event.text)
            if not recovery.events:
                print(f"{role.name}: nothing to put back")
            complete &= recovery.complete
    return 0 if complete else 1
