"""libvirt's complete QEMU driver inside our own process: no daemon, nothing of the host touched.

The driver keeps everything under one root folder and lives and dies with the process; its guests
do not, so whoever starts some must end them (see runs.py).
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import os
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from virtbalance.lab.errors import LabError
from virtbalance.lab.reaper import inherit_orphans
from virtbalance.lab.runs import end_run, new_run

if TYPE_CHECKING:
    from collections.abc import Callable

QEMU_CONF = """\
stdio_handler = "file"
security_driver = "none"
namespaces = []
user = "root"
group = "root"
remember_owner = 0
"""
"""`file`, or it would ask for virtlogd; the rest keeps it from touching the host."""

LOG_VARIABLE = "LIBVIRT_LOG_OUTPUTS"

LONGEST_ROOT_BYTES = 40
"""The driver's sockets are under the root, and a socket's path is limited to 108 bytes."""

CAPABILITIES = Path("cache", "qemu", "capabilities")
"""What libvirt found out about the host's QEMU, under a root. Asking again takes seconds, so it is
kept between runs; libvirt itself sees when it is out of date."""

_lock = threading.Lock()
_root: Path | None = None


def embedded_root(say: Callable[[str], None], cache: Path) -> Path:
    """Return this process's root folder for the embedded driver, making it at the first call.

    A process can have one root in its life. Also starts libvirt's event loop, which the driver
    needs. The root is removed, and what runs in it ended, when the process ends. Raises LabError
    if the path is too long.
    """
    global _root  # noqa: PLW0603 - the limit is libvirt's, one a process
    with _lock:
        if _root is None:
            _root = _new_root(say, cache)
            atexit.register(end_run, _root)
        # Not before: it imports libvirt, which then opens its log.
        from virtbalance.hypervisor.event_loop import ensure_event_loop

        ensure_event_loop()
        return _root


def embedded_uri(root: Path) -> str:
    """Return the URI that opens the embedded driver on a root."""
    return f"qemu:///embed?root={root}"


def use_kept_capabilities(root: Path, cache: Path) -> None:
    """Give a new root what libvirt found out about QEMU in an earlier one."""
    with contextlib.suppress(FileNotFoundError):
        shutil.copytree(cache / CAPABILITIES.name, root / CAPABILITIES)


def keep_capabilities(root: Path, cache: Path) -> None:
    """Keep what libvirt found out about QEMU for the next root."""
    kept = cache / CAPABILITIES.name
    kept.mkdir(exist_ok=True)
    for path in (root / CAPABILITIES).glob("*.xml"):
        temporary = kept / f".{path.name}.{os.getpid()}"
        shutil.copyfile(path, temporary)
        temporary.rename(kept / path.name)


def _new_root(say: Callable[[str], None], cache: Path) -> Path:
    root = new_run(say)
    if len(str(root).encode()) > LONGEST_ROOT_BYTES:
        shutil.rmtree(root)
        raise LabError(f"{root}: over {LONGEST_ROOT_BYTES} bytes, too long for libvirt's sockets")
    (root / "etc").mkdir()
    (root / "etc" / "qemu.conf").write_text(QEMU_CONF)
    use_kept_capabilities(root, cache)
    _import_libvirt_with_log(root / "libvirt.log")
    inherit_orphans()
    return root


def _import_libvirt_with_log(path: Path) -> None:
    """Have libvirt log to a file: inside our process it would warn on our standard error.

    It reads the setting when it is first imported; one that the user made is left alone.
    """
    if LOG_VARIABLE in os.environ:
        return
    os.environ[LOG_VARIABLE] = f"3:file:{path}"
    try:
        importlib.import_module("libvirt")
    finally:
        del os.environ[LOG_VARIABLE]
