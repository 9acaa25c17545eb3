"""Links for calls that may hang with a guest: one call each, and as many links as it takes.

libvirtd works on five calls of a client at once, then it stops reading from that client, so a few
hung guests would silence all others. And libvirt's own client (seen with 9.0) may sleep through
an answer for seconds when one thread hangs in a call while another makes one on the same
connection. A link that carries one call at a time knows neither trouble.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from virtbalance.hypervisor.link import Link


class LinkPool:
    """Hands out links; used from many threads."""

    def __init__(self, first: Link, open_another: Callable[[], Link] | None) -> None:
        """``open_another`` is ``None`` where calls stay in this process and share one link."""
        self._first = first
        self._open_another = open_another
        self._lock = threading.Lock()
        self._idle = [first]
        self._closed = False

    @contextmanager
    def use(self) -> Iterator[Link]:
        """Lend a link for one call. libvirtError if another one is needed and can't be opened."""
        if self._open_another is None:
            yield self._first
            return
        link = self._take_idle() or self._open_another()
        try:
            yield link
        finally:
            self._give_back(link)

    def close(self) -> None:
        """Let go of every link that is not in use, and of the others when their call ends."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for link in idle:
            link.close()

    def _take_idle(self) -> Link | None:
        with self._lock:
            while self._idle:
                link = self._idle.pop()
                if link.is_alive():
                    return link
        return None

    def _give_back(self, link: Link) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(link)
                return
        link.close()
