"""The lab: guests started together, commanded while they run, and all ended at its end."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import threading
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Self
from uuid import UUID

from virtbalance.lab.assets import assets
from virtbalance.lab.channel import Channel
from virtbalance.lab.domain_xml import CHANNEL_NAME, Place, domain_xml
from virtbalance.lab.embedded import embedded_uri
from virtbalance.lab.errors import LabError
from virtbalance.lab.guest import Guest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import libvirt

    from virtbalance.lab.specs import GuestSpec

BOOT_TIMEOUT_S = 180.0
"""Guests that share few CPUs without KVM are slow to come up together."""


class Lab:
    """Guests on one libvirt connection, ended when the context is left."""

    def __init__(self, connection: libvirt.virConnect, uri: str, place: Place) -> None:
        self.connection = connection
        self.uri = uri
        self._place = place
        self._guests: list[Guest] = []
        self._lock = threading.Lock()

    @classmethod
    def embedded(cls, say: Callable[[str], None]) -> Self:
        """Open a lab on libvirt's driver inside this process; see embedded.py."""
        import libvirt

        boot = assets(say)
        root = _root()
        uri = embedded_uri(root)
        try:
            connection = libvirt.open(uri)
        except libvirt.libvirtError as error:
            raise LabError(f"embedded libvirt: {error}") from error
        folder = root / "g"
        folder.mkdir(exist_ok=True)
        return cls(connection, uri, Place("qemu", boot.kernel, boot.initramfs, "", folder))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def guests(self) -> tuple[Guest, ...]:
        """The guests started and not stopped through their handles, in order of start."""
        return tuple(self._guests)

    def start(self, specs: Sequence[GuestSpec], timeout_s: float = BOOT_TIMEOUT_S) -> list[Guest]:
        """Start guests side by side and wait until each reports.

        Raises LabError, with the guests of this call ended, if one does not come up in time.
        """
        with ThreadPoolExecutor(max_workers=max(1, len(specs))) as pool:
            return list(pool.map(lambda spec: self._start(spec, timeout_s), specs))

    def close(self) -> None:
        """End all guests and the connection."""
        for guest in self._guests:
            guest.stop()
        self._guests.clear()
        self.connection.close()

    def _start(self, spec: GuestSpec, timeout_s: float) -> Guest:
        import libvirt

        text = domain_xml(spec, self._place)
        try:
            if spec.persistent:
                domain = self.connection.defineXML(text)
                domain.create()
            else:
                domain = self.connection.createXML(text)
            path = _channel_path(domain)
            uuid = UUID(domain.UUIDString())
        except libvirt.libvirtError as error:
            raise LabError(f"guest {spec.name} can't be started: {error}") from error
        guest = Guest(spec, uuid, domain, Channel(path, spec.name))
        with self._lock:
            self._guests.append(guest)
        guest.report(timeout_s)
        return guest


def _channel_path(domain: libvirt.virDomain) -> Path:
    """Read where a running guest's channel is, as libvirt says in its live XML."""
    tree = ET.fromstring(domain.XMLDesc())  # noqa: S314 - libvirt wrote it
    for channel in tree.iterfind("devices/channel[@type='unix']"):
        target, source = channel.find("target"), channel.find("source")
        if target is None or source is None or target.get("name") != CHANNEL_NAME:
            continue
        return Path(source.get("path", ""))
    raise LabError(f"guest {domain.name()} has no channel {CHANNEL_NAME}")


_process_root: Path | None = None


def _root() -> Path:
    """Return this process's root of the embedded driver: it can have but one."""
    global _process_root  # noqa: PLW0603 - the limit is libvirt's, one a process
    if _process_root is None:
        base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
        _process_root = Path(tempfile.mkdtemp(prefix="vb-", dir=base))
        atexit.register(shutil.rmtree, _process_root, ignore_errors=True)
    return _process_root
