"""``virt-balance set``: the owner's wishes for one guest, kept in its libvirt metadata."""

import argparse
import datetime as dt
from dataclasses import replace

from virtbalance.cli.arguments import add_connection, size_kib, weight
from virtbalance.cli.assembly import connected
from virtbalance.cli.errors import CommandError, UsageError
from virtbalance.model.errors import HypervisorError
from virtbalance.model.guest import GuestSettings, RoleName

_SWAP = {"yes": True, "no": False, "auto": None}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("guest", metavar="GUEST", help="name or UUID")
    add_connection(parser)
    parser.add_argument("--weight", metavar="W", type=weight, help="share relative to others")
    parser.add_argument("--minimum", metavar="SIZE", type=size_kib, help="smallest balloon")
    parser.add_argument("--maximum", metavar="SIZE", type=size_kib, help="largest balloon")
    parser.add_argument(
        "--swap",
        choices=list(_SWAP),
        help="whether it has swap and may be squeezed in overload (auto: if it was seen to swap)",
    )
    parser.add_argument(
        "--exclude",
        type=RoleName,
        choices=list(RoleName),
        action="append",
        help="let this program leave the guest alone (may be repeated)",
    )
    parser.add_argument("--include", action="store_true", help="let both programs serve it again")
    parser.add_argument("--defaults", action="store_true", help="forget all settings first")
    parser.add_argument("--show", action="store_true", help="print its settings, change nothing")


def run(arguments: argparse.Namespace) -> int:
    """Write the settings; running programs follow at once and lift what holds they have on it."""
    with connected(arguments.uri, dry_run=arguments.show) as hypervisor:
        try:
            settings, mistakes = hypervisor.settings(arguments.guest)
            if not arguments.show:
                settings = _changed(settings, arguments)
                hypervisor.write_settings(arguments.guest, settings)
                mistakes = ()
        except HypervisorError as error:
            raise CommandError(str(error)) from error
    print(f"{arguments.guest}: {_words(settings)}")
    for mistake in mistakes:
        print(f"{arguments.guest}: in its metadata: {mistake}")
    return 0


def _changed(settings: GuestSettings, arguments: argparse.Namespace) -> GuestSettings:
    if arguments.defaults:
        settings = GuestSettings()
    if arguments.weight is not None:
        settings = replace(settings, weight=arguments.weight)
    if arguments.minimum is not None:
        settings = replace(settings, minimum_kib=arguments.minimum)
    if arguments.maximum is not None:
        settings = replace(settings, maximum_kib=arguments.maximum)
    if arguments.swap is not None:
        settings = replace(settings, swap=_SWAP[arguments.swap])
    if arguments.include:
        settings = replace(settings, exclude=frozenset())
    if arguments.exclude:
        settings = replace(settings, exclude=settings.exclude | set(arguments.exclude))
    minimum_kib, maximum_kib = settings.minimum_kib, settings.maximum_kib
    if minimum_kib is not None and maximum_kib is not None and minimum_kib > maximum_kib:
        raise UsageError(f"the minimum of {minimum_kib} KiB is above the maximum of {maximum_kib}")
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    return replace(settings, revision=now)


def _words(settings: GuestSettings) -> str:
    parts = [f"weight {settings.weight:g}"]
    if settings.minimum_kib is not None:
        parts.append(f"minimum {settings.minimum_kib} KiB")
    if settings.maximum_kib is not None:
        parts.append(f"maximum {settings.maximum_kib} KiB")
    if settings.swap is not None:
        parts.append("with swap" if settings.swap else "without swap")
    if settings.exclude:
        parts.append(f"left alone by {' and '.join(sorted(settings.exclude))}")
    if settings.revision:
        parts.append(f"set {settings.revision}")
    return ", ".join(parts)
