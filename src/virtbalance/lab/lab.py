"""The lab: guests started together, commanded while they run, and all ended at its end."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from virtbalance.lab.assets import assets, cache_folder
from virtbalance.lab.domain_xml import Place
from virtbalance.lab.embedded import embedded_root, embedded_uri, keep_capabilities
from virtbalance.lab.errors import LabError
from virtbalance.lab.kept import end_left_over, kept_domains
from virtbalance.lab.link import Link
from virtbalance.lab.marks import release
from virtbalance.lab.probe import PATIENCE_S, virtualization
from virtbalance.lab.processes import Owner
from virtbalance.lab.runs import end_kept_runs, end_run, keep_run, new_run
from virtbalance.lab.site import Site, Start, stop_all
from virtbalance.lab.specs import GuestSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from virtbalance.lab.guest import Guest

BOOT_TIMEOUT_S = 180.0
"""Guests that share few CPUs without KVM are slow to come up together."""

SHARED_FOLDER = Path("/var/lib/libvirt/virt-balance-lab")
"""Where a libvirtd's QEMU, which runs as a user of its own, may read what a guest boots from."""

SYSTEM_PIDS = Path("/run/libvirt/qemu")
"""Where libvirtd's QEMU processes have their pid files."""


class Lab:
    """Guests on one libvirt, ended when the context is left.

    Made by `embedded` or `on`. Methods raise LabError for what does not work.
    """

    def __init__(self, site: Site, run: Path | None) -> None:
        self._site = site
        self._run = run
        self._guests: list[Guest] = []

    @classmethod
    def embedded(cls, say: Callable[[str], None]) -> Self:
        """Open a lab on libvirt's driver inside this process (see embedded.py).

        Other connections to `uri` in this process see the same guests.
        """
        cache = cache_folder()
        boot = assets(say, cache)
        root = embedded_root(say, cache)
        folder = root / "g"
        folder.mkdir(exist_ok=True)
        place = Place("qemu", boot.kernel, boot.initramfs, str(Owner.this()), folder)
        site = Site(Link(embedded_uri(root)), place, root / "run" / "qemu")
        lab = cls(_with_virtualization(site, cache, say), None)
        keep_capabilities(root, cache)
        return lab

    @classmethod
    def on(
        cls,
        uri: str | None,
        say: Callable[[str], None],
        *,
        folder: Path | None = None,
        pids: Path = SYSTEM_PIDS,
    ) -> Self:
        """Open a lab on a running libvirtd of this host; None is libvirt's default URI.

        Ends what killed labs left there first. With `folder` the guests' sockets and logs go
        there, and QEMU must run as this user; else libvirt chooses the sockets, and what guests
        boot from is copied to where QEMU's own user can read it.
        """
        cache = cache_folder()
        boot = assets(say, cache)
        link = _local_link(uri)
        end_left_over(link, say)
        place = Place("qemu", boot.kernel, boot.initramfs, str(Owner.this()), folder)
        run = None
        if folder is None:
            run = new_run(say, SHARED_FOLDER)
            kernel = shutil.copyfile(boot.kernel, run / "kernel")
            initramfs = shutil.copyfile(boot.initramfs, run / "initramfs")
            place = replace(place, kernel=kernel, initramfs=initramfs)
        site = Site(link, place, pids)
        return cls(_with_virtualization(site, cache, say), run)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def uri(self) -> str:
        """The libvirt URI the guests are on."""
        return self._site.link.uri

    @property
    def virtualization(self) -> str:
        """The guests' libvirt domain type, `kvm` or `qemu` (TCG)."""
        return self._site.place.virtualization

    @property
    def guests(self) -> tuple[Guest, ...]:
        """The guests started here, in the order they were asked for."""
        return tuple(self._guests)

    def start(self, specs: Sequence[GuestSpec], timeout_s: float = BOOT_TIMEOUT_S) -> list[Guest]:
        """Start guests side by side, wait until each reports, return them in the order asked.

        If one does not come up in time, those of this call are ended.
        """
        guests = _start(self._site, specs, timeout_s)
        self._guests += guests
        return guests

    def keep(self) -> None:
        """Let the guests outlive this process and this lab, until end_kept."""
        for guest in self._guests:
            release(guest.domain)
            guest.disconnect()
        self._guests.clear()
        if self._run is not None:
            keep_run(self._run)
            self._run = None

    def close(self) -> None:
        """End all guests and the connection."""
        try:
            stop_all(self._guests)
        finally:
            self._guests.clear()
            if self._run is not None:
                end_run(self._run)
                self._run = None
            self._site.link.close()


def kept_guests(uri: str | None) -> list[Guest]:
    """Return handles of the guests that were started to stay, in the order of their names."""
    link = _local_link(uri)
    nowhere = Place("qemu", Path(), Path(), "", None)
    site = Site(link, nowhere, SYSTEM_PIDS)
    return [site.guest(domain) for domain in kept_domains(link)]


def end_kept(uri: str | None, say: Callable[[str], None]) -> int:
    """End the guests that were started to stay, and what killed labs left; say how many stayed."""
    guests = kept_guests(uri)
    stop_all(guests)
    end_left_over(_local_link(uri), say)
    end_kept_runs(SHARED_FOLDER)
    return len(guests)


def _start(site: Site, specs: Sequence[GuestSpec], timeout_s: float) -> list[Guest]:
    start = Start(site, timeout_s)
    with ThreadPoolExecutor(max_workers=max(1, len(specs))) as pool:
        waiting = [pool.submit(start, spec) for spec in specs]
        try:
            wait(waiting, return_when=FIRST_EXCEPTION)
            failed = [one for one in waiting if one.done() and one.exception()]
            return [one.result() for one in [*failed, *waiting]]
        except BaseException:
            start.cancel()
            raise


def _with_virtualization(site: Site, cache: Path, say: Callable[[str], None]) -> Site:
    def boots() -> bool:
        probe = replace(site, place=replace(site.place, virtualization="kvm"))
        try:
            stop_all(_start(probe, [GuestSpec(name=f"probe-{os.getpid()}")], PATIENCE_S))
        except LabError:
            return False
        return True

    choice = virtualization(cache, boots, say)
    return replace(site, place=replace(site.place, virtualization=choice))


def _local_link(uri: str | None) -> Link:
    link = Link(uri)
    if urlsplit(link.uri).netloc:
        link.close()
        raise LabError(f"{link.uri}: the lab's guests run on this host only")
    return link
