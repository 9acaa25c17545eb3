"""Where guests run: one libvirt, what they boot from, where their files are; and starting them."""

from __future__ import annotations

import threading
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from virtbalance.lab.channel import Channel
from virtbalance.lab.domain_xml import CHANNEL_NAME, Place, domain_xml
from virtbalance.lab.errors import LabError
from virtbalance.lab.guest import Guest, end

if TYPE_CHECKING:
    from collections.abc import Iterable

    import libvirt

    from virtbalance.lab.link import Link
    from virtbalance.lab.specs import GuestSpec


@dataclass(frozen=True, slots=True)
class Site:
    """One place for guests. `pids` is the folder of QEMU's pid files."""

    link: Link
    place: Place
    pids: Path

    def guest(self, domain: libvirt.virDomain) -> Guest:
        """Return the handle of a running guest of the lab."""
        name = domain.name()
        channel = Channel(channel_path(domain), name)
        uuid = UUID(domain.UUIDString())
        return Guest(name, uuid, self.link, channel, self.pids / f"{name}.pid")


class Start:
    """Guests being started at a site side by side, until they report or the start is cancelled."""

    def __init__(self, site: Site, timeout_s: float) -> None:
        self._site = site
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._started: list[Guest] = []
        self._cancelled = False

    def __call__(self, spec: GuestSpec) -> Guest:
        """Start one guest and wait until it reports; LabError if it does not."""
        guest = self._create(spec)
        with self._lock:
            self._started.append(guest)
            cancelled = self._cancelled
        if cancelled:
            guest.stop()
            raise LabError(f"guest {spec.name}: start cancelled")
        try:
            guest.report(self._timeout_s)
        except LabError as error:
            raise LabError(
                f"guest {spec.name} did not come up: {error}{self._log(spec)}"
            ) from error
        return guest

    def cancel(self) -> None:
        """End the guests started so far, and those still being started once they are."""
        with self._lock:
            self._cancelled = True
            started = list(self._started)
        stop_all(started)

    def _create(self, spec: GuestSpec) -> Guest:
        import libvirt

        text = domain_xml(spec, self._site.place)
        domain = None
        try:
            if spec.persistent:
                domain = self._site.link(lambda connection: connection.defineXML(text))
                domain.create()
            else:
                domain = self._site.link(lambda connection: connection.createXML(text))
            return self._site.guest(domain)
        except libvirt.libvirtError as error:
            if domain is not None:
                end(domain)
            raise LabError(f"guest {spec.name} can't be started: {error}") from error

    def _log(self, spec: GuestSpec) -> str:
        """Return the last line on the guest's console, where there is one."""
        if self._site.place.folder is None:
            return ""
        try:
            log = (self._site.place.folder / f"{spec.name}.log").read_text(errors="replace")
        except OSError:
            return ""
        lines = [line.strip() for line in log.splitlines() if line.strip()]
        return f" (console: {lines[-1][-200:]})" if lines else ""


def stop_all(guests: Iterable[Guest]) -> None:
    """Stop guests side by side; LabError if one can't be stopped, after trying all."""
    waiting = list(guests)
    if not waiting:
        return
    with ThreadPoolExecutor(max_workers=len(waiting)) as pool:
        stopped = [pool.submit(guest.stop) for guest in waiting]
    for one in stopped:
        one.result()


def channel_path(domain: libvirt.virDomain) -> Path:
    """Read where a running guest's channel is, as libvirt says in its live XML."""
    tree = ET.fromstring(domain.XMLDesc())  # noqa: S314 - libvirt wrote it
    for channel in tree.iterfind("devices/channel[@type='unix']"):
        target, source = channel.find("target"), channel.find("source")
        if target is None or source is None or target.get("name") != CHANNEL_NAME:
            continue
        return Path(source.get("path", ""))
    raise LabError(f"guest {domain.name()} has no channel {CHANNEL_NAME}")
