"""libvirt's event loop: one thread for the whole process, started before the first connection."""

import threading

import libvirt

_lock = threading.Lock()
_started = False


def ensure_event_loop() -> None:
    """Start libvirt's default event loop in a daemon thread, once a process.

    Events, keepalive and the embedded driver need it, and it must exist before a connection is
    opened. Safe to call from anywhere, any number of times.
    """
    global _started  # noqa: PLW0603  libvirt's event loop is global to the process as well
    with _lock:
        if _started:
            return
        libvirt.virEventRegisterDefaultImpl()
        libvirt.registerErrorHandler(_say_nothing, None)
        threading.Thread(target=_run, name="libvirt-events", daemon=True).start()
        _started = True


def _run() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()


def _say_nothing(_context: object, _error: object) -> None:
    """Keep libvirt from printing what we handle as an exception."""
