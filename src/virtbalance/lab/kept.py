"""Guests of the lab on a libvirtd that outlive the process that started them, meant to or not."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from virtbalance.lab.guest import end
from virtbalance.lab.marks import is_left_over, owner_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import libvirt

    from virtbalance.lab.link import Link


def kept_domains(link: Link) -> list[libvirt.virDomain]:
    """Return the domains that were started to stay, by name."""
    domains = link(lambda connection: connection.listAllDomains())
    return sorted(
        (domain for domain in domains if owner_of(domain) == ""), key=lambda domain: domain.name()
    )


def end_left_over(link: Link, say: Callable[[str], None]) -> None:
    """End the guests of labs whose process is gone without having ended them."""
    import libvirt

    for domain in link(lambda connection: connection.listAllDomains()):
        if not is_left_over(domain):
            continue
        name = domain.name()
        with contextlib.suppress(libvirt.libvirtError):  # somebody else may be at it, too
            end(domain)
            say(f"lab: ended guest {name}, which a killed lab left behind")
