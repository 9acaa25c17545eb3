"""The libvirt filling of the Hypervisor protocol: a live host, connected or waiting to be again."""

import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from virtbalance.hypervisor import host
from virtbalance.hypervisor.calls import call_within
from virtbalance.hypervisor.connection import OPEN_TIMEOUT_S, host_id, open_connection
from virtbalance.hypervisor.guests import list_difference
from virtbalance.hypervisor.session import Session
from virtbalance.hypervisor.settings_store import load_settings, store_settings
from virtbalance.model.errors import HypervisorError, HypervisorLostError
from virtbalance.model.guest import GuestSettings
from virtbalance.model.plan import Action
from virtbalance.model.snapshot import Scope, Snapshot
from virtbalance.model.tick import Event, Outcome, Status
from virtbalance.model.topology import Topology

T = TypeVar("T")


def connect(
    uri: str | None = None,
    *,
    read_only: bool = False,
    root: Path = Path("/"),
    timeout_s: float = OPEN_TIMEOUT_S,
) -> "LibvirtHypervisor":
    """Connect to a libvirt URI (``None``: libvirt's own default) and learn who is there.

    ``root`` is prefixed to every path of the host. HypervisorLostError if nobody answers within
    ``timeout_s``, HypervisorDeniedError if we may not, HypervisorError if the URI makes no sense.
    """
    return LibvirtHypervisor(uri, read_only=read_only, root=root, timeout_s=timeout_s)


class LibvirtHypervisor:
    """A live host, used by one thread at a time.

    On this very machine the vCPU counters come from the kernel and the rest from libvirt; of a
    remote host everything comes from libvirt.
    """

    def __init__(self, uri: str | None, *, read_only: bool, root: Path, timeout_s: float) -> None:
        self._uri = uri
        self._read_only = read_only
        self._root = root
        self._timeout_s = timeout_s
        self._events: deque[Event] = deque()
        self._last_names: dict[str, str] = {}
        self._session: Session | None = self._open()
        connection = self._alive_session().connection
        self._host_id = host_id(connection, root)
        self._boot_id = host.read_boot_id(root) if connection.is_local else ""

    @property
    def host_id(self) -> str:
        """A name for this host and driver, stable across restarts and safe as a file name."""
        return self._host_id

    @property
    def boot_id(self) -> str:
        """The kernel's name for this boot; empty for a remote host, where nobody tells."""
        return self._boot_id

    @property
    def read_only(self) -> bool:
        """Whether the connection was opened for looking only."""
        return self._read_only

    def topology(self) -> Topology:
        """Return the host's CPUs as they are now."""
        return self._alive_session().topology()

    def sample(self, scope: Scope, deadline_s: float) -> Snapshot:
        """Look at the host once. A guest that does not answer in time is marked, not awaited."""
        session = self._alive_session()
        try:
            return session.sample(scope, time.monotonic() + deadline_s)
        except HypervisorLostError:
            session.connection.broken.set()
            raise

    def apply(self, actions: Sequence[Action], deadline_s: float) -> tuple[Outcome, ...]:
        """Carry actions out in order, one call each, all within the deadline; one outcome each."""
        if self._read_only:
            return _all_refused(actions, "the connection is read-only")
        if self._session is None or not self._session.connection.is_alive:
            return _all_refused(actions, "the connection is lost")
        return self._session.apply(actions, deadline_s)

    def events(self) -> tuple[Event, ...]:
        """Return what happened since the last call (guests that came or went, and the like)."""
        return tuple(self._events.popleft() for _ in range(len(self._events)))

    def settings(self, guest: str) -> tuple[GuestSettings, tuple[str, ...]]:
        """Return the owner's wishes for a guest (name or UUID) and what is wrong with them.

        HypervisorError if there is no such guest.
        """
        link = self._alive_session().connection.events
        return self._promptly(lambda: load_settings(link, guest))

    def write_settings(self, guest: str, settings: GuestSettings) -> None:
        """Write the owner's wishes for a guest (name or UUID), running or not.

        They replace those that are there. HypervisorError if there is no such guest.
        """
        link = self._alive_session().connection.events
        self._promptly(lambda: store_settings(link, guest, settings))

    def reconnect(self) -> None:
        """Make the connection anew after ``HypervisorLostError``; raises it again if that fails."""
        self.close()
        try:
            self._session = self._open()
        except HypervisorError as error:
            # It could be reached once, so whatever is wrong now may pass.
            raise HypervisorLostError(str(error)) from error
        told = list_difference(self._last_names, self._session.names())
        if told is not None:
            self._events.append(told)

    def close(self) -> None:
        """Let go of everything held; safe to call twice."""
        session, self._session = self._session, None
        if session is not None:
            self._last_names = session.names()
            session.close()

    def _open(self) -> Session:
        connection = open_connection(
            self._uri, read_only=self._read_only, timeout_s=self._timeout_s
        )
        try:
            return Session(connection, self._root, self._events.append, self._timeout_s)
        except HypervisorError:
            connection.close()
            raise

    def _promptly(self, question: Callable[[], T]) -> T:
        try:
            return call_within(self._timeout_s, question)
        except TimeoutError as error:
            text = f"libvirt did not answer within {self._timeout_s:g} s"
            raise HypervisorLostError(text) from error

    def _alive_session(self) -> Session:
        if self._session is None:
            raise HypervisorLostError("not connected")
        if not self._session.connection.is_alive:
            raise HypervisorLostError(f"lost the connection to {self._session.connection.uri}")
        return self._session


def _all_refused(actions: Sequence[Action], text: str) -> tuple[Outcome, ...]:
    return tuple(Outcome(action, Status.REFUSED, text) for action in actions)
