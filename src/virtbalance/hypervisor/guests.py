"""Who is there: the guests of a host, followed by events and by a full list from time to time.

libvirt's callbacks only leave a mark and an event behind; the marked guests are read again before
the next sample, everybody at the full list. Reading happens in one daemon thread, so that a
libvirt that hangs costs a sample its freshness but never its time: only after ``patience_s``
without an answer the connection counts as lost. None of the calls made here waits for a guest's
monitor, so a hung guest does not delay the others.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libvirt

from virtbalance.hypervisor import domain_events
from virtbalance.hypervisor.calls import Call, Callers
from virtbalance.hypervisor.errors import Fault, exception_of, fault_of, text_of
from virtbalance.hypervisor.guest_xml import GuestXml, read_guest_xml
from virtbalance.hypervisor.link import ActiveDomain, Link
from virtbalance.hypervisor.processes import GuestProcess, find_process, start_time_of
from virtbalance.hypervisor.settings_xml import NAMESPACE, read_settings
from virtbalance.hypervisor.vcpu_threads import confirmed_threads
from virtbalance.model.errors import HypervisorLostError
from virtbalance.model.guest import GuestDefinition, GuestSettings, GuestState
from virtbalance.model.tick import Event

LIST_INTERVAL_S = 30.0
PATIENCE_S = 5.0

_STATES = {
    libvirt.VIR_DOMAIN_PAUSED: GuestState.PAUSED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: GuestState.PAUSED,
    libvirt.VIR_DOMAIN_SHUTOFF: GuestState.STOPPED,
    libvirt.VIR_DOMAIN_CRASHED: GuestState.STOPPED,
}


@dataclass(frozen=True, slots=True)
class LocalHost:
    """Where a guest's process is looked for when it runs on this very machine."""

    pid_folders: tuple[Path, ...]
    proc: Path


@dataclass(frozen=True, slots=True)
class Guest:
    """What is known of one guest between samples."""

    uuid: str
    name: str
    domain_id: int
    state: GuestState
    settings: GuestSettings
    mistakes: tuple[str, ...]
    """What is wrong with its metadata."""
    definition: GuestDefinition
    maximum_kib: int
    current_kib: int
    vcpus: frozenset[int]
    process: GuestProcess | None
    """``None``: not on this machine, or not found."""
    threads: Mapping[int, int] | None
    """vCPU index to thread id; ``None``: not known for sure, so libvirt is asked instead."""
    doubt: str = ""
    """Why ``threads`` is not known although the guest runs here."""

    @property
    def incarnation(self) -> str:
        """Changes with every start of the guest, even under the same domain id."""
        return f"{self.domain_id}-{self.process.start_time if self.process else 0}"


class Guests:
    """All active guests by UUID."""

    def __init__(
        self,
        link: Link,
        event_link: Link,
        local: LocalHost | None,
        tell: Callable[[Event], None],
        *,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._link = link
        self._event_link = event_link
        self._local = local
        self._tell = tell
        self._patience_s = patience_s
        self._callers = Callers("guests", 1)
        self._call: Call[Mapping[str, Guest]] | None = None
        self._asked_s = 0.0
        self._guests: Mapping[str, Guest] | None = None
        self._marks: deque[str] = deque()
        self._explained: set[str] = set()
        self._next_list_s = 0.0
        self._subscriptions: list[int] = []
        self._follows_events = self._subscribe()

    def current(self, timeout_s: float) -> Mapping[str, Guest]:
        """Return all active guests, as fresh as it can be had within ``timeout_s``.

        HypervisorLostError when libvirt has not answered for longer than the patience.
        """
        awaited = self._guests is None or bool(self._marks) or not self._follows_events
        if self._call is None and (awaited or time.monotonic() >= self._next_list_s):
            self._asked_s = time.monotonic()
            self._call = self._callers.submit("guests", self._refresh)
        if self._call is not None:
            self._collect(timeout_s if awaited else 0.0)
        if self._guests is None:
            raise HypervisorLostError(f"libvirt did not list its guests within {timeout_s:g} s")
        return self._guests

    def known(self, uuid: str) -> Guest | None:
        """Return what is known of one guest, without asking."""
        return (self._guests or {}).get(uuid)

    def mark(self, uuid: str) -> None:
        """Have this guest read again before the next sample."""
        self._marks.append(uuid)

    def close(self) -> None:
        """Take the subscriptions back. libvirtError if the connection is broken."""
        self._callers.close()
        for subscription in self._subscriptions:
            self._event_link.drop_domain_event(subscription)
        self._subscriptions.clear()

    def _collect(self, timeout_s: float) -> None:
        assert self._call is not None
        future = self._call.future
        wait([future], max(0.0, timeout_s))
        if future.done():
            self._call = None
            try:
                self._guests = future.result()
            except libvirt.libvirtError as error:
                raise exception_of(error, "listing the guests") from error
        elif (silent_s := time.monotonic() - self._asked_s) > self._patience_s:
            raise HypervisorLostError(f"libvirt has not answered for {silent_s:.0f} s")

    # In the libvirt event thread

    def _subscribe(self) -> bool:
        """Subscribe to what there is; False if this driver has no lifecycle events."""
        subscribe = self._event_link.on_domain_event
        wanted: list[tuple[int, Callable[..., None]]] = [
            (domain_events.LIFECYCLE, self._on_lifecycle),
            (domain_events.TUNABLE, self._on_tunable),
            *((event_id, self._on_change) for event_id in domain_events.OTHER_CHANGES),
        ]
        refused = set()
        for event_id, callback in wanted:
            try:
                self._subscriptions.append(subscribe(event_id, callback))
            except libvirt.libvirtError as error:
                if fault_of(error) is Fault.LOST:
                    raise exception_of(error, "subscribing to events") from error
                refused.add(event_id)
        return domain_events.LIFECYCLE not in refused

    def _on_lifecycle(self, _conn: Any, domain: Any, event: int, detail: int, _opaque: Any) -> None:
        uuid, name = domain.UUIDString(), domain.name()
        if (told := domain_events.lifecycle_event(uuid, name, event, detail)) is not None:
            self._explained.add(uuid)
            self._tell(told)
        self._marks.append(uuid)

    def _on_tunable(self, _conn: Any, domain: Any, tunables: Any, _opaque: Any) -> None:
        # Pins are seen in every sample anyway, and most of them are our own.
        if not all(str(name).startswith(domain_events.PIN_PREFIXES) for name in tunables):
            self._marks.append(domain.UUIDString())

    def _on_change(self, _conn: Any, domain: Any, *_details: Any) -> None:
        self._marks.append(domain.UUIDString())

    # In the reading thread

    def _refresh(self) -> Mapping[str, Guest]:
        before = self._guests or {}
        marked = {self._marks.popleft() for _ in range(len(self._marks))}
        if self._guests is not None and self._follows_events and not self._list_is_due():
            return self._reread(before, marked)
        self._next_list_s = time.monotonic() + LIST_INTERVAL_S
        read = (self._read(entry, before.get(entry.uuid)) for entry in self._link.active())
        now = {guest.uuid: guest for guest in read if guest is not None}
        if self._guests is not None:
            self._tell_difference(before, now)
        self._explained.clear()
        return now

    def _list_is_due(self) -> bool:
        return time.monotonic() >= self._next_list_s

    def _reread(self, before: Mapping[str, Guest], marked: set[str]) -> Mapping[str, Guest]:
        now = dict(before)
        for uuid in marked:
            now.pop(uuid, None)
            if (guest := self._find(uuid, before.get(uuid))) is not None:
                now[uuid] = guest
        return now

    def _find(self, uuid: str, before: Guest | None) -> Guest | None:
        try:
            entry = self._link.find(uuid)
        except libvirt.libvirtError as error:
            if fault_of(error) is Fault.GONE:
                return None
            raise
        return self._read(entry, before) if entry.id >= 0 else None

    def _tell_difference(self, before: Mapping[str, Guest], now: Mapping[str, Guest]) -> None:
        """Say what changed between two full lists without an event having told."""
        came = sorted(now[u].name for u in now.keys() - before.keys() - self._explained)
        went = sorted(before[u].name for u in before.keys() - now.keys() - self._explained)
        if came or went:
            changes = [f"new: {', '.join(came)}"] * bool(came)
            changes += [f"gone: {', '.join(went)}"] * bool(went)
            figures = {"came": len(came), "went": len(went)}
            self._tell(Event("guest-list-refreshed", "; ".join(changes), figures=figures))

    def _read(self, entry: ActiveDomain, before: Guest | None) -> Guest | None:
        try:
            live = self._link.live_xml(entry.uuid)
            persistent = self._link.is_persistent(entry.uuid)
            inactive = self._link.inactive_xml(entry.uuid) if persistent else None
            state = _STATES.get(self._link.state(entry.uuid), GuestState.RUNNING)
            xml = read_guest_xml(live, inactive, NAMESPACE)
            guest = self._with_threads(entry, state, xml, before)
        except libvirt.libvirtError as error:
            match fault_of(error):
                case Fault.GONE:
                    return None
                case Fault.LOST:
                    raise
            self._tell(Event("guest-unreadable", f"{entry.name}: {text_of(error)}", entry.uuid))
            return before
        self._tell_news(guest, before)
        return guest

    def _with_threads(
        self, entry: ActiveDomain, state: GuestState, xml: GuestXml, before: Guest | None
    ) -> Guest:
        settings, mistakes = read_settings(xml.settings)
        process = self._process(entry, before)
        threads: Mapping[int, int] | None = None
        doubt = ""
        if self._local is not None and process is None:
            doubt = "no pid file leads to its process"
        elif self._local is not None and process is not None:
            if before is not None and before.threads is not None and before.process == process:
                threads = before.threads if before.vcpus == xml.vcpus else None
            if threads is None:
                threads, doubt = confirmed_threads(
                    process.pid, self._local.proc, lambda: self._link.vcpus(entry.uuid)
                )
        return Guest(
            uuid=entry.uuid,
            name=entry.name,
            domain_id=entry.id,
            state=state,
            settings=settings,
            mistakes=mistakes,
            definition=xml.definition,
            maximum_kib=xml.maximum_kib,
            current_kib=xml.current_kib,
            vcpus=xml.vcpus,
            process=process,
            threads=threads,
            doubt=doubt,
        )

    def _process(self, entry: ActiveDomain, before: Guest | None) -> GuestProcess | None:
        if self._local is None:
            return None
        if before is not None and before.process is not None and before.domain_id == entry.id:
            pid, start_time = before.process
            if start_time_of(pid, self._local.proc) == start_time:
                return before.process
        return find_process(self._local.pid_folders, entry.name, self._local.proc)

    def _tell_news(self, guest: Guest, before: Guest | None) -> None:
        if guest.mistakes and (before is None or before.mistakes != guest.mistakes):
            text = f"{guest.name}: {'; '.join(guest.mistakes)}"
            self._tell(Event("bad-metadata", text, guest.uuid))
        if guest.doubt and (before is None or before.doubt != guest.doubt):
            text = f"{guest.name}: CPU time comes from libvirt, which is slower: {guest.doubt}"
            self._tell(Event("slow-path", text, guest.uuid))
