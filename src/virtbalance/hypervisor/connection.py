"""Opening libvirt, with a deadline: links for events, for sensing and for acting.

Three kinds, because libvirtd serves a client five calls at once: statistics of hung guests must
not keep a change from being made, nor events from arriving.
"""

import hashlib
import os
import re
import socket
import struct
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event as Flag
from urllib.parse import parse_qs, urlsplit

import libvirt

from virtbalance.hypervisor.calls import Callers, call_within
from virtbalance.hypervisor.capabilities import host_uuid
from virtbalance.hypervisor.embedded import is_embedded, open_embedded
from virtbalance.hypervisor.errors import Fault, exception_of, fault_of
from virtbalance.hypervisor.event_loop import ensure_event_loop
from virtbalance.hypervisor.guest_reading import LocalHost
from virtbalance.hypervisor.link import Link
from virtbalance.hypervisor.link_pool import LinkPool
from virtbalance.model.errors import HypervisorLostError
from virtbalance.model.guest import USUAL_SHARES

OPEN_TIMEOUT_S = 20.0
_CLOSE_TIMEOUT_S = 1.0
_KEEPALIVE_INTERVAL_S = 3
_KEEPALIVE_COUNT = 3
_UNIFIED_SHARES = 100
_UCRED = struct.Struct("iII")  # pid, user, group: unix(7)
_LOCAL_SCHEME = re.compile(r"(\w+)(\+unix)?")


@dataclass(frozen=True, slots=True)
class Connection:
    """An open connection and what is known of the other end from the start."""

    uri: str
    driver: str
    events: Link
    """For events, lists and descriptions of guests: nothing that hangs with one of them."""
    sensing: LinkPool
    acting: LinkPool
    cpu_map: tuple[bool, ...]
    capabilities: str | None
    """``None`` for the local host, which we can look at ourselves."""
    broken: Flag
    """Set by whoever notices first that the other end is gone: libvirt or a call of ours."""

    @property
    def is_alive(self) -> bool:
        """Whether the other end is there, as far as libvirt has noticed."""
        return not self.broken.is_set() and self.events.is_alive()

    @property
    def is_local(self) -> bool:
        """Whether the guests run on this very machine."""
        return _is_local(self.uri, self.driver)

    def close(self) -> None:
        """Close all links; what hangs is left to its thread."""
        callers = Callers("close", 3)
        closers: set[Link | LinkPool] = {self.events, self.sensing, self.acting}
        calls = callers.submit_all({str(i): closer.close for i, closer in enumerate(closers)})
        calls["0"].wait(_CLOSE_TIMEOUT_S)
        callers.close()


def open_connection(
    uri: str | None, *, read_only: bool, timeout_s: float = OPEN_TIMEOUT_S
) -> Connection:
    """Open a connection.

    HypervisorLostError if nobody answers in time, HypervisorDeniedError if we may not,
    HypervisorError if the URI makes no sense.
    """
    ensure_event_loop()
    try:
        return call_within(timeout_s, lambda: _open(uri, read_only=read_only))
    except TimeoutError as error:
        text = f"{_name(uri)} did not answer within {timeout_s:g} s"
        raise HypervisorLostError(text) from error
    except libvirt.libvirtError as error:
        raise exception_of(error, f"can't connect to {_name(uri)}") from error


def _open(uri: str | None, *, read_only: bool) -> Connection:
    uri = uri or os.environ.get("LIBVIRT_DEFAULT_URI") or None
    broken = Flag()
    open_link = partial(_open_link, uri, read_only=read_only)
    events = open_link()
    driver = events.driver()
    if not read_only:
        _check_that_changes_are_permitted(events)
    if _has_peer(events):
        events.on_close(broken.set)
        sensing, acting = LinkPool(open_link(), open_link), LinkPool(open_link(), open_link)
    else:
        # Calls stay in this process; and each connection to the test driver may be its own host.
        sensing = acting = LinkPool(events, None)
    canonical = uri or events.uri()
    return Connection(
        uri=canonical,
        driver=driver,
        events=events,
        sensing=sensing,
        acting=acting,
        cpu_map=events.cpu_map(),
        capabilities=None if _is_local(canonical, driver) else events.capabilities(),
        broken=broken,
    )


def _check_that_changes_are_permitted(link: Link) -> None:
    try:
        link.try_to_change()
    except libvirt.libvirtError as error:
        if fault_of(error) is Fault.DENIED:
            raise  # every other error is of the call itself: it got past the permission


def _open_link(uri: str | None, *, read_only: bool) -> Link:
    if uri and is_embedded(uri):
        return Link(open_embedded(uri, read_only=read_only))
    opener = libvirt.openReadOnly if read_only else libvirt.open
    return Link(opener(_with_transport(uri)))


def _with_transport(uri: str | None) -> str | None:
    """Name the way to a local libvirtd.

    Once a process has loaded the embedded QEMU driver, that one claims every ``qemu:///`` URI.
    """
    if uri and uri.startswith("qemu:///"):
        return uri.replace("qemu:///", "qemu+unix:///", 1)
    return uri


def _has_peer(link: Link) -> bool:
    """Whether the driver is in another process, which could go away; watch it if so."""
    try:
        link.set_keepalive(_KEEPALIVE_INTERVAL_S, _KEEPALIVE_COUNT)
    except libvirt.libvirtError as error:
        if fault_of(error) is not Fault.UNSUPPORTED:
            raise
        return False
    return True


def _is_local(uri: str, driver: str) -> bool:
    parts = urlsplit(uri)
    return bool(_LOCAL_SCHEME.fullmatch(parts.scheme)) and not parts.netloc and driver != "test"


def local_host(connection: Connection, root: Path) -> LocalHost | None:
    """Return where the processes of local QEMU guests are found; ``None`` if there are none."""
    if not connection.is_local or connection.driver != "qemu":
        return None
    parts = urlsplit(connection.uri)
    query = parse_qs(parts.query)
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}")
    match parts.path:
        case "/embed":
            folders = [Path(name) / "run/qemu" for name in query.get("root", [])]
        case "/session":
            folders = [runtime / "libvirt/qemu/run", Path.home() / ".cache/libvirt/qemu/run"]
        case _:
            folders = [root / "run/libvirt/qemu"]
            folders[:0] = [
                _server_root(name, root) / "run/libvirt/qemu" for name in query.get("socket", [])
            ]
    unified = (root / "sys/fs/cgroup/cgroup.controllers").exists()
    shares = _UNIFIED_SHARES if unified else USUAL_SHARES
    return LocalHost(tuple(folders), root / "proc", shares)


def _server_root(socket_name: str, root: Path) -> Path:
    """Return the root folder of whoever listens on a socket: it may be in a container."""
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(socket_name)
            credentials = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    except OSError:
        return root
    return root / "proc" / str(_UCRED.unpack(credentials)[0]) / "root"


def host_id(connection: Connection, root: Path) -> str:
    """Return a name for host and driver that stays the same and is safe as a file name.

    The UUID in the capabilities is invented at every start on hosts without firmware tables, so
    a local host goes by its machine id.
    """
    told = host_uuid(connection.capabilities) if connection.capabilities else None
    machine = told or _machine_id(root)
    parts = urlsplit(connection.uri)
    words = [machine or "unknown", connection.driver, parts.path.strip("/")]
    if parts.query:
        words.append(hashlib.sha256(parts.query.encode()).hexdigest()[:8])
    return re.sub(r"[^A-Za-z0-9._-]+", "_", "-".join(word for word in words if word))


def _machine_id(root: Path) -> str | None:
    try:
        return (root / "etc/machine-id").read_text().strip() or None
    except OSError:
        return None


def _name(uri: str | None) -> str:
    return uri or "libvirt's default URI"
