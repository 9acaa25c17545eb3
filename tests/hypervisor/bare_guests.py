"""Guests without an operating system: real QEMU processes that are up in half a second.

They have real vCPU threads, a monitor and a balloon device that nobody drives. They live on the
embedded driver of this process, whose root the lab makes and cleans up.
"""

import contextlib
from pathlib import Path
from typing import Any

import libvirt

from virtbalance.hypervisor.embedded import is_embedded, open_embedded
from virtbalance.lab.assets import cache_folder
from virtbalance.lab.embedded import embedded_root, embedded_uri, keep_capabilities

DOMAIN = """
<domain type='qemu'>
  <name>{name}</name>{uuid}
  <metadata>{metadata}</metadata>
  <memory unit='MiB'>{memory_mib}</memory>
  <vcpu current='{vcpus}'>{most_vcpus}</vcpu>
  {extra}
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <features><acpi/></features>
  <cpu mode='maximum'/>
  <devices>
    <controller type='usb' model='none'/>
    <memballoon model='virtio'><stats period='1'/></memballoon>
  </devices>
</domain>"""


class BareGuests:
    """Starts guests on one connection and ends all of them."""

    def __init__(self, uri: str, pid_folder: Path) -> None:
        self.uri = uri
        self.connection = open_embedded(uri) if is_embedded(uri) else libvirt.open(uri)
        self._pid_folder = pid_folder
        self._domains: list[Any] = []

    def define(self, name: str, **settings: object) -> Any:
        """Define a persistent guest without starting it."""
        domain = self.connection.defineXML(domain_xml(name, **settings))
        self._domains.append(domain)
        return domain

    def start(self, name: str, **settings: object) -> Any:
        """Start a transient guest; returns its ``virDomain``."""
        domain = self.connection.createXML(domain_xml(name, **settings))
        self._domains.append(domain)
        return domain

    def pid(self, name: str) -> int:
        """Return the process of a running guest."""
        return int((self._pid_folder / f"{name}.pid").read_text())

    def close(self) -> None:
        """End every guest."""
        for domain in self._domains:
            with contextlib.suppress(libvirt.libvirtError):
                domain.destroy()
            with contextlib.suppress(libvirt.libvirtError):
                domain.undefine()
        self._domains.clear()


def domain_xml(name: str, **settings: object) -> str:
    """Return the XML of a bare guest."""
    values: dict[str, object] = {
        "uuid": "",
        "metadata": "",
        "memory_mib": 32,
        "vcpus": 2,
        "most_vcpus": settings.get("vcpus", 2),
        "extra": "",
        **settings,
    }
    if values["uuid"]:
        values["uuid"] = f"<uuid>{values['uuid']}</uuid>"
    return DOMAIN.format(name=name, **values)


def embedded_guests() -> BareGuests:
    """Return an empty set of guests on this process's embedded driver."""
    root = embedded_root(print, cache_folder())
    guests = BareGuests(embedded_uri(root), root / "run/qemu")
    keep_capabilities(root, cache_folder())
    return guests
