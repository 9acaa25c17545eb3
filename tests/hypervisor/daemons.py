"""A private libvirtd with bare guests, seen as the local host or as if it were far away."""

import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tests.hypervisor.bare_guests import BareGuests
from virtbalance.hypervisor.event_loop import ensure_event_loop
from virtbalance.lab.private_libvirtd import PrivateLibvirtd

BRIDGE = """#!{python}
import os, selectors, socket
far = socket.socket(socket.AF_UNIX)
far.connect({socket!r})
ways = {{0: far.fileno(), far.fileno(): 1}}
watch = selectors.DefaultSelector()
for end in ways:
    watch.register(end, selectors.EVENT_READ)
while True:
    for key, _ in watch.select():
        data = os.read(key.fd, 65536)
        if not data:
            raise SystemExit
        while data:
            data = data[os.write(ways[key.fd], data):]
"""


@contextmanager
def private_libvirtd() -> Iterator[tuple[PrivateLibvirtd, BareGuests]]:
    """A running daemon and an empty set of guests on it."""
    ensure_event_loop()
    daemon = PrivateLibvirtd(print)
    # Where the embedded driver is loaded, it claims every URI that does not name its transport.
    daemon.uri = daemon.uri.replace("qemu:///", "qemu+unix:///")
    with daemon:
        guests = BareGuests(daemon.uri, socket_of(daemon).parent / "qemu")
        yield daemon, guests


def socket_of(daemon: PrivateLibvirtd) -> Path:
    return Path(parse_qs(urlsplit(daemon.uri).query)["socket"][0])


def far_uri(daemon: PrivateLibvirtd, folder: Path) -> str:
    """Return a URI of the same daemon by which nobody can see that it is on this machine."""
    assert shutil.which(sys.executable)
    bridge = folder / "bridge"
    bridge.write_text(BRIDGE.format(python=sys.executable, socket=str(socket_of(daemon))))
    bridge.chmod(bridge.stat().st_mode | stat.S_IXUSR)
    return f"qemu+ext://far/system?command={bridge}"
