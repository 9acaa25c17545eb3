"""Links for calls that may hang with a guest: a few calls each, and as many links as it takes.

libvirtd works on five calls of a client at once, then it stops reading from that client. A guest
whose QEMU hangs keeps its call, so five of them on one link would silence all others, and even
the keepalive. Here no link ever carries more than four.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from virtbalance.hypervisor.link import Link

CALLS_PER_LINK = 4


class LinkPool:
    """Hands out links; used from many threads."""

    def __init__(self, first: Link, open_another: Callable[[], Link] | None) -> None:
        """``open_another`` is ``None`` where calls don't cross to another process."""
        self._open_another = open_another
        self._lock = threading.Lock()
        self._calls: dict[Link, int] = {first: 0}

    @contextmanager
    def use(self) -> Iterator[Link]:
        """Lend a link for one call. libvirtError if another one is needed and can't be opened."""
        link = self._take()
        try:
            yield link
        finally:
            with self._lock:
                self._calls[link] -= 1

    def close(self) -> None:
        """Close every link; may block as long as libvirt likes."""
        for link in list(self._calls):
            link.close()

    def _take(self) -> Link:
        with self._lock:
            for link, calls in self._calls.items():
                if self._open_another is None or (calls < CALLS_PER_LINK and link.is_alive()):
                    self._calls[link] += 1
                    return link
        assert self._open_another is not None
        link = self._open_another()
        with self._lock:
            self._calls[link] = 1
        return link
