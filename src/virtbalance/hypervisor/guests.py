"""Who is there: the guests of a host, followed by events and by a full list from time to time.

libvirt's callbacks only leave a mark and an event behind; the marked guests are read again before
the next sample, everybody at the full list. Reading happens in one daemon thread, so that a
libvirt that hangs costs a sample its freshness but never its time: only after ``patience_s``
without an answer the connection counts as lost.
"""

import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from typing import Any

import libvirt

from virtbalance.hypervisor import domain_events
from virtbalance.hypervisor.calls import Call, Callers
from virtbalance.hypervisor.errors import Fault, exception_of, fault_of, text_of
from virtbalance.hypervisor.guest_reading import Guest, GuestReader, LocalHost
from virtbalance.hypervisor.link import Link
from virtbalance.model.errors import HypervisorLostError
from virtbalance.model.tick import Event

LIST_INTERVAL_S = 30.0
SECOND_LOOK_S = 1.0
"""A guest whose threads do not fit what libvirt says may just be getting or losing a vCPU."""
PATIENCE_S = 5.0


class Guests:
    """All active guests, by UUID and in its order.

    ``link`` is used for nothing that may hang with a guest.
    """

    def __init__(
        self,
        link: Link,
        local: LocalHost | None,
        tell: Callable[[Event], None],
        *,
        list_interval_s: float = LIST_INTERVAL_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._link = link
        self._reader = GuestReader(link, local, tell)
        self._tell = tell
        self._list_interval_s = list_interval_s
        self._patience_s = patience_s
        self._callers = Callers("guests", 1)
        self._call: Call[Mapping[str, Guest]] | None = None
        self._asked_s = 0.0
        self._guests: Mapping[str, Guest] | None = None
        self._next_list_s = 0.0
        self._marks: deque[str] = deque()
        self._second_looks: deque[tuple[float, str]] = deque()
        self._listed: Mapping[str, str] = {}
        self._explained: set[str] = set()
        self._follows_events = self._subscribe()

    def current(self, timeout_s: float) -> Mapping[str, Guest]:
        """Return all active guests, as fresh as can be had within ``timeout_s``.

        HypervisorLostError when libvirt has not answered for longer than the patience.
        """
        now_s = time.monotonic()
        end_s = now_s + timeout_s
        while self._second_looks and self._second_looks[0][0] <= now_s:
            self._marks.append(self._second_looks.popleft()[1])
        if self._call is not None:
            self._collect(end_s if self._is_unsettled() else 0.0)
        if self._call is None and (self._is_unsettled() or self._list_is_due()):
            wait_for_it = self._is_unsettled() or not self._follows_events
            self._asked_s = time.monotonic()
            self._call = self._callers.submit("guests", self._refresh)
            self._collect(end_s if wait_for_it else 0.0)
        if self._guests is None:
            raise HypervisorLostError(f"libvirt did not list its guests within {timeout_s:g} s")
        return self._guests

    def known(self, uuid: str) -> Guest | None:
        """Return what is known of one guest, without asking."""
        return self.latest().get(uuid)

    def latest(self) -> Mapping[str, Guest]:
        """Return the guests as last read, without asking."""
        return self._guests or {}

    def mark(self, uuid: str) -> None:
        """Have this guest read again before the next sample."""
        self._marks.append(uuid)

    def close(self) -> None:
        """Let the reading thread end. The subscriptions end with the link."""
        self._callers.close()

    def _is_unsettled(self) -> bool:
        """Whether something happened that the next sample should not miss."""
        return self._guests is None or bool(self._marks)

    def _list_is_due(self) -> bool:
        return not self._follows_events or time.monotonic() >= self._next_list_s

    def _collect(self, end_s: float) -> None:
        """Take the answer of the reading thread if it comes before the monotonic ``end_s``."""
        assert self._call is not None
        call = self._call
        if not call.wait(end_s - time.monotonic()):
            if (silent_s := time.monotonic() - self._asked_s) > self._patience_s:
                raise HypervisorLostError(f"libvirt has not answered for {silent_s:.0f} s")
            return
        self._call = None
        try:
            self._guests = call.result()
        except libvirt.libvirtError as error:
            raise HypervisorLostError(f"listing the guests: {text_of(error)}") from error

    # In the reading thread

    def _refresh(self) -> Mapping[str, Guest]:
        before = self._guests
        marked = {self._marks.popleft() for _ in range(len(self._marks))}
        if before is None or self._list_is_due():
            return self._list(before)
        now = dict(before)
        for uuid in marked:
            now.pop(uuid, None)
            former = before.get(uuid)
            if (guest := self._reader.find(uuid, former)) is not None:
                now[uuid] = guest
                if guest.doubt and former is not None and not former.doubt:
                    self._second_looks.append((time.monotonic() + SECOND_LOOK_S, uuid))
        return dict(sorted(now.items()))

    def _list(self, before: Mapping[str, Guest] | None) -> Mapping[str, Guest]:
        self._next_list_s = time.monotonic() + self._list_interval_s
        explained, self._explained = self._explained, set()
        known = before or {}
        read = (self._reader.read(entry, known.get(entry.uuid)) for entry in self._link.active())
        now = {guest.uuid: guest for guest in read if guest is not None}
        listed, self._listed = self._listed, names_of(now)
        if before is not None and (told := list_difference(listed, self._listed, explained)):
            self._tell(told)
        return dict(sorted(now.items()))

    # In libvirt's event thread

    def _subscribe(self) -> bool:
        """Subscribe to what there is; False if this driver has no lifecycle events."""
        wanted: list[tuple[int, Callable[..., None]]] = [
            (domain_events.LIFECYCLE, self._on_lifecycle),
            (domain_events.TUNABLE, self._on_tunable),
            *((event_id, self._on_change) for event_id in domain_events.OTHER_CHANGES),
        ]
        refused = set()
        for event_id, callback in wanted:
            try:
                self._link.on_domain_event(event_id, callback)
            except libvirt.libvirtError as error:
                if fault_of(error) is Fault.LOST:
                    raise exception_of(error, "subscribing to events") from error
                refused.add(event_id)
        return domain_events.LIFECYCLE not in refused

    def _on_lifecycle(self, _conn: Any, domain: Any, event: int, detail: int, _opaque: Any) -> None:
        uuid, name = domain.UUIDString(), domain.name()
        told = domain_events.lifecycle_event(uuid, name, event, detail)
        # Every start is also announced as a resume, before the start itself.
        is_echo = told is not None and told.kind == "guest-resumed" and self.known(uuid) is None
        if told is not None and not is_echo:
            self._explained.add(uuid)
            self._tell(told)
        self._marks.append(uuid)

    def _on_tunable(self, _conn: Any, domain: Any, tunables: Any, _opaque: Any) -> None:
        # Pins are seen in every sample anyway, and most of them are our own.
        if not all(str(name).startswith(domain_events.PIN_PREFIXES) for name in tunables):
            self._marks.append(domain.UUIDString())

    def _on_change(self, _conn: Any, domain: Any, *_details: Any) -> None:
        self._marks.append(domain.UUIDString())


def names_of(guests: Mapping[str, Guest]) -> dict[str, str]:
    """Return the name of each guest by UUID."""
    return {uuid: guest.name for uuid, guest in guests.items()}


def list_difference(
    before: Mapping[str, str], now: Mapping[str, str], explained: Collection[str] = ()
) -> Event | None:
    """Say who came and went between two lists, save those of whom an event has told."""
    came = sorted(now[uuid] for uuid in now.keys() - before.keys() - set(explained))
    went = sorted(before[uuid] for uuid in before.keys() - now.keys() - set(explained))
    changes = [f"new: {', '.join(came)}"] if came else []
    changes += [f"gone: {', '.join(went)}"] if went else []
    if not changes:
        return None
    figures = {"came": len(came), "went": len(went)}
    return Event("guest-list-refreshed", "; ".join(changes), figures=figures)
