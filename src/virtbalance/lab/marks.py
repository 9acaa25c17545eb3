"""The mark in a domain's metadata that says it is a guest of the lab, and whose.

On a libvirt that others use too, the mark is how the lab knows its guests again, also from another
process. The owner is the process that started the guest (processes.Owner as text), empty for a
guest that is to stay until `lab down`.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

from virtbalance.lab.processes import Owner

if TYPE_CHECKING:
    import libvirt

NAMESPACE = "https://virt-balance.dev/xmlns/lab/1"
PREFIX = "lab"


def mark(owner: str) -> ET.Element:
    """Return the metadata element that marks a guest."""
    return ET.Element(f"{{{NAMESPACE}}}guest", owner=owner)


def owner_of(domain: libvirt.virDomain) -> str | None:
    """Return the owner in a domain's mark; None if the domain is not of the lab, or gone."""
    import libvirt

    try:
        text = domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE)
    except libvirt.libvirtError as error:
        if error.get_error_code() in (
            libvirt.VIR_ERR_NO_DOMAIN_METADATA,
            libvirt.VIR_ERR_NO_DOMAIN,
        ):
            return None
        raise
    # libvirt hands the element out without the declaration of its prefix where that is above it.
    found = ET.fromstring(text)  # noqa: S314 - libvirt wrote it
    return found.get("owner")


def is_left_over(domain: libvirt.virDomain) -> bool:
    """Say whether a domain is a guest of a lab whose process is gone."""
    text = owner_of(domain)
    if not text:
        return False
    owner = Owner.parse(text)
    return owner is None or not owner.alive()


def release(domain: libvirt.virDomain) -> None:
    """Let a guest outlive the process that started it."""
    import libvirt

    flags = libvirt.VIR_DOMAIN_AFFECT_LIVE
    if domain.isPersistent():
        flags |= libvirt.VIR_DOMAIN_AFFECT_CONFIG
    domain.setMetadata(
        libvirt.VIR_DOMAIN_METADATA_ELEMENT, '<guest owner=""/>', PREFIX, NAMESPACE, flags
    )
