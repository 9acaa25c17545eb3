"""QEMU processes as children of ours, so that they are gone as soon as they end.

QEMU makes itself a daemon, so pid 1 inherits it; until pid 1 takes note of its end (some take
seconds, and a container's may never do), libvirt goes on waiting for it, up to 40 s. A process
that declares itself a "subreaper" inherits such orphans instead. See prctl(2),
PR_SET_CHILD_SUBREAPER.

Children that somebody started and waits for are left alone: only processes named like QEMU and in
a session of their own, as daemons are, are orphans. (The embedded libvirt itself waits for QEMU
processes that are on their way to become daemons; those are still in our session.)
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PR_SET_CHILD_SUBREAPER = 36
QEMU_NAME = "qemu-"
PAUSE_S = 0.05


_thread: threading.Thread | None = None
_lock = threading.Lock()


def inherit_orphans() -> None:
    """Make this process the parent of orphaned QEMU processes, and take note of their ends."""
    global _thread  # noqa: PLW0603 - being a subreaper is a property of the process
    with _lock:
        if _thread is not None:
            return
        _thread = threading.Thread(target=_reap, name="lab-reaper", daemon=True)
        _thread.start()
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _reap() -> None:
    while True:
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)  # sleep until any child has ended
        for pid in _children():
            if _is_orphan(pid):
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
        # There may be no child to sleep on, or one that ended and waits for its own parent code.
        time.sleep(PAUSE_S)


def _children() -> Iterator[int]:
    for listing in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            yield from map(int, listing.read_text("ascii").split())


def _is_orphan(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return False
    # Field 2 is the name in brackets, which may hold brackets itself; field 6 is the session.
    name = text[text.index("(") + 1 : text.rindex(")")]
    session = int(text[text.rindex(")") + 1 :].split()[3])
    return name.startswith(QEMU_NAME) and session != os.getsid(0)
