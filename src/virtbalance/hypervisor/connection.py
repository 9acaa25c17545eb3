"""Opening libvirt: one connection each for sensing, acting and events, with a deadline.

Three, because libvirtd serves a client five calls at once: statistics of hung guests must not
keep a change from being made, nor events from arriving.
"""

import hashlib
import os
import re
from concurrent.futures import wait
from dataclasses import dataclass
from pathlib import Path
from threading import Event as Flag
from urllib.parse import parse_qs, urlsplit

import libvirt

from virtbalance.hypervisor.calls import Callers
from virtbalance.hypervisor.capabilities import host_uuid
from virtbalance.hypervisor.errors import exception_of
from virtbalance.hypervisor.event_loop import ensure_event_loop
from virtbalance.hypervisor.guests import LocalHost
from virtbalance.hypervisor.link import Link
from virtbalance.model.errors import HypervisorLostError

OPEN_TIMEOUT_S = 20.0
_CLOSE_TIMEOUT_S = 1.0
_KEEPALIVE_INTERVAL_S = 3
_KEEPALIVE_COUNT = 3
_LOCAL_SCHEME = re.compile(r"(\w+)(\+unix)?")


@dataclass(frozen=True, slots=True)
class Connection:
    """The three links of one open connection, and what is known of the other end."""

    uri: str
    driver: str
    sensing: Link
    acting: Link
    events: Link
    broken: Flag
    """Set by libvirt when it notices that the other end is gone."""

    @property
    def is_alive(self) -> bool:
        """Whether all three links are good, as far as libvirt has noticed."""
        return not self.broken.is_set() and all(
            link.is_alive() for link in (self.sensing, self.acting, self.events)
        )

    @property
    def is_local(self) -> bool:
        """Whether the guests run on this very machine."""
        parts = urlsplit(self.uri)
        found = _LOCAL_SCHEME.fullmatch(parts.scheme)
        return found is not None and not parts.netloc and self.driver != "test"

    def close(self) -> None:
        """Close all links; one that hangs is left to its thread."""
        callers = Callers("close", 3)
        links = {self.sensing, self.acting, self.events}
        calls = [callers.submit(str(number), link.close) for number, link in enumerate(links)]
        wait([call.future for call in calls if call is not None], _CLOSE_TIMEOUT_S)
        callers.close()


def open_connection(
    uri: str | None, *, read_only: bool, timeout_s: float = OPEN_TIMEOUT_S
) -> Connection:
    """Open a connection.

    HypervisorLostError if nobody answers in time, HypervisorDeniedError if we may not,
    HypervisorError if the URI makes no sense.
    """
    ensure_event_loop()
    callers = Callers("open", 1)
    call = callers.submit("open", lambda: _open(uri, read_only=read_only))
    assert call is not None
    callers.close()
    wait([call.future], timeout_s)
    if not call.future.done():
        raise HypervisorLostError(f"{_name(uri)} did not answer within {timeout_s:g} s")
    try:
        return call.future.result()
    except libvirt.libvirtError as error:
        raise exception_of(error, f"can't connect to {_name(uri)}") from error


def _open(uri: str | None, *, read_only: bool) -> Connection:
    opener = libvirt.openReadOnly if read_only else libvirt.open
    broken = Flag()
    sensing = Link(opener(uri))
    if sensing.driver() == "test":
        # Each connection to the test driver may be a host of its own.
        acting = events = sensing
    else:
        acting, events = Link(opener(uri)), Link(opener(uri))
    for link in {sensing, acting, events}:
        try:
            link.set_keepalive(_KEEPALIVE_INTERVAL_S, _KEEPALIVE_COUNT)
            link.on_close(broken.set)
        except libvirt.libvirtError as error:
            # A driver inside this process (embedded, test) has no peer that could go away.
            if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:
                raise
    return Connection(
        uri=uri or sensing.uri(),
        driver=sensing.driver(),
        sensing=sensing,
        acting=acting,
        events=events,
        broken=broken,
    )


def local_host(connection: Connection, root: Path) -> LocalHost | None:
    """Return where the processes of local QEMU guests are found; ``None`` if there are none."""
    if not connection.is_local or connection.driver != "qemu":
        return None
    parts = urlsplit(connection.uri)
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}")
    match parts.path:
        case "/embed":
            folders = [Path(name) / "run/qemu" for name in parse_qs(parts.query).get("root", [])]
        case "/session":
            folders = [runtime / "libvirt/qemu/run", Path.home() / ".cache/libvirt/qemu/run"]
        case _:
            folders = [root / "run/libvirt/qemu"]
    return LocalHost(tuple(folders), root / "proc")


def host_id(connection: Connection, root: Path) -> str:
    """Return a name for host and driver that stays the same and is safe as a file name.

    The UUID in the capabilities is invented at every start on hosts without firmware tables, so
    a local host goes by its machine id.
    """
    local = connection.is_local or connection.driver == "test"
    machine = _machine_id(root) if local else host_uuid(connection.sensing.capabilities())
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
