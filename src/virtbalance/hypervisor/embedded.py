"""The embedded driver's connections, shared by everybody in this process.

Each opening of ``qemu:///embed?root=...`` registers the driver once more, and libvirt has room for
20 drivers in the life of a process: the sixteenth opening or so fails for good ("Too many
drivers"). So each is opened once and kept open until the process ends.
"""

import threading
from typing import Any
from urllib.parse import urlsplit

import libvirt

from virtbalance.hypervisor.event_loop import ensure_event_loop

_lock = threading.Lock()
_connections: dict[tuple[str, bool], Any] = {}


def is_embedded(uri: str | None) -> bool:
    """Whether a URI is one of the embedded driver."""
    return urlsplit(uri or "").path == "/embed"


def open_embedded(uri: str, *, read_only: bool = False) -> Any:
    """Return this process's ``virConnect`` for an embedded driver. Nobody should close it."""
    ensure_event_loop()
    with _lock:
        if (uri, read_only) not in _connections:
            opener = libvirt.openReadOnly if read_only else libvirt.open
            _connections[uri, read_only] = opener(uri)
        return _connections[uri, read_only]
