"""A libvirt connection of the lab that opens again after libvirtd went away."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TypeVar

from virtbalance.lab.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    import libvirt

Result = TypeVar("Result")


class Link:
    """A connection to one URI, None for libvirt's default. Thread-safe.

    Raises LabError if the URI can't be opened.
    """

    def __init__(self, uri: str | None) -> None:
        self._asked_uri = uri
        self._lock = threading.Lock()
        self._connection = self._open()
        self.uri: str = self._connection.getURI()

    def __call__(self, ask: Callable[[libvirt.virConnect], Result]) -> Result:
        """Ask something of the connection, and once more on a new one if it turns out lost."""
        import libvirt

        connection = self._connection
        try:
            return ask(connection)
        except libvirt.libvirtError:
            if connection.isAlive():
                raise
        with self._lock:
            if self._connection is connection:
                self._connection = self._open()
        return ask(self._connection)

    def domain(self, uuid: UUID) -> libvirt.virDomain:
        """Look a domain up; libvirtError if it is gone."""
        return self(lambda connection: connection.lookupByUUID(uuid.bytes))

    def close(self) -> None:
        """Close the connection, unless all of this process share it."""
        from virtbalance.hypervisor.embedded import is_embedded

        if not is_embedded(self._asked_uri):
            self._connection.close()

    def _open(self) -> libvirt.virConnect:
        import libvirt

        from virtbalance.hypervisor.embedded import is_embedded, open_embedded
        from virtbalance.hypervisor.event_loop import ensure_event_loop

        ensure_event_loop()  # it also keeps libvirt from printing the errors it raises
        try:
            if self._asked_uri and is_embedded(self._asked_uri):
                return open_embedded(self._asked_uri)
            return libvirt.open(self._asked_uri)
        except libvirt.libvirtError as error:
            where = self._asked_uri or "libvirt's default URI"
            raise LabError(f"{where}: {error}") from error
