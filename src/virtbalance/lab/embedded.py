"""libvirt's complete QEMU driver inside our own process: no daemon, nothing of the host touched.

The driver keeps everything under one root folder and lives and dies with the process; its guests
do not, so whoever starts some must end them (see leftovers.py).
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from virtbalance.lab.errors import LabError

if TYPE_CHECKING:
    from pathlib import Path

QEMU_CONF = """\
stdio_handler = "file"
security_driver = "none"
namespaces = []
user = "root"
group = "root"
remember_owner = 0
"""
"""`file`, or it would ask for virtlogd; the rest keeps it from touching the host."""

LONGEST_ROOT_BYTES = 40
"""The driver's sockets are under the root, and a socket's path is limited to 108 bytes."""

_event_loop: threading.Thread | None = None
_event_loop_lock = threading.Lock()


def embedded_uri(root: Path) -> str:
    """Prepare a root folder for the embedded driver and return the URI to open.

    Also starts libvirt's event loop, which the driver needs, in a daemon thread. A process can
    have one root at a time. Raises LabError if the path is too long.
    """
    if len(str(root).encode()) > LONGEST_ROOT_BYTES:
        raise LabError(f"{root}: longer than {LONGEST_ROOT_BYTES} bytes, too long for a root")
    (root / "etc").mkdir(parents=True, exist_ok=True)
    (root / "etc" / "qemu.conf").write_text(QEMU_CONF)
    run_event_loop()
    return f"qemu:///embed?root={root}"


def run_event_loop() -> None:
    """Run libvirt's default event loop in a daemon thread, once a process."""
    import libvirt

    global _event_loop  # noqa: PLW0603 - libvirt's event loop is one a process, too
    with _event_loop_lock:
        if _event_loop is not None:
            return
        libvirt.virEventRegisterDefaultImpl()
        _event_loop = threading.Thread(target=_run, name="libvirt-events", daemon=True)
        _event_loop.start()


def _run() -> None:
    import libvirt

    while True:
        libvirt.virEventRunDefaultImpl()
