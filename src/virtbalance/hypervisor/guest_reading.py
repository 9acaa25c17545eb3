"""Read one guest: its XML, state, metadata, and on this machine its process and vCPU threads.

None of the libvirt calls made here waits for the guest's monitor, so a hung guest can be read.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from xml.etree.ElementTree import ParseError

import libvirt

from virtbalance.hypervisor.errors import Fault, fault_of, text_of
from virtbalance.hypervisor.guest_xml import read_guest_xml
from virtbalance.hypervisor.link import ActiveDomain, Link
from virtbalance.hypervisor.processes import GuestProcess, find_process, start_time_of
from virtbalance.hypervisor.settings_xml import NAMESPACE, read_settings
from virtbalance.hypervisor.vcpu_threads import confirmed_threads
from virtbalance.model.guest import USUAL_SHARES, GuestDefinition, GuestSettings, GuestState
from virtbalance.model.tick import Event

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
    usual_shares: int = USUAL_SHARES
    """The kernel's weight of a control group with none of its own: 100 in cgroup v2."""


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
    """The balloon's size when this was read."""
    vcpus: frozenset[int]
    """Indices of the vCPUs that are plugged in."""
    process: GuestProcess | None = None
    """``None``: not on this machine, or not found."""
    threads: Mapping[int, int] | None = None
    """vCPU index to thread id; ``None``: not known for sure, so libvirt is asked instead."""
    doubt: str = ""
    """Why ``threads`` is not known although the guest runs here."""
    incarnation: str = field(init=False, compare=False)
    """Changes with every start of the guest, even under the same domain id."""

    def __post_init__(self) -> None:
        start_time = self.process.start_time if self.process else 0
        object.__setattr__(self, "incarnation", f"{self.domain_id}-{start_time}")


class GuestReader:
    """Reads guests over one link."""

    def __init__(self, link: Link, local: LocalHost | None, tell: Callable[[Event], None]) -> None:
        self._link = link
        self._local = local
        self._tell = tell

    def find(self, uuid: str, before: Guest | None) -> Guest | None:
        """Read one guest anew; ``None`` if it is not active any more."""
        try:
            entry = self._link.find(uuid)
        except libvirt.libvirtError as error:
            if fault_of(error) is Fault.GONE:
                return None
            raise
        return self.read(entry, before) if entry.id >= 0 else None

    def read(self, entry: ActiveDomain, before: Guest | None) -> Guest | None:
        """Read a guest that the list shows; ``None`` if it has ended since.

        ``before`` is the last reading: what can't have changed since is taken from it. A guest
        that libvirt can't describe keeps its last reading. libvirtError if the connection broke.
        """
        try:
            guest = self._read(entry, before)
        except libvirt.libvirtError as error:
            match fault_of(error):
                case Fault.GONE:
                    return None
                case Fault.LOST:
                    raise
            self._tell(Event("guest-unreadable", f"{entry.name}: {text_of(error)}", entry.uuid))
            return before
        except (ValueError, ParseError) as error:
            self._tell(Event("guest-unreadable", f"{entry.name}: {error}", entry.uuid))
            return before
        self._tell_news(guest, before)
        return guest

    def _read(self, entry: ActiveDomain, before: Guest | None) -> Guest:
        live = self._link.live_xml(entry.uuid)
        persistent = self._link.is_persistent(entry.uuid)
        inactive = self._link.inactive_xml(entry.uuid) if persistent else None
        xml = read_guest_xml(live, inactive, NAMESPACE)
        settings, mistakes = read_settings(xml.settings)
        process = self._process(entry, before)
        threads, doubt = self._threads(entry.uuid, process, xml.vcpus, before)
        return Guest(
            uuid=entry.uuid,
            name=entry.name,
            domain_id=entry.id,
            state=_STATES.get(self._link.state(entry.uuid), GuestState.RUNNING),
            settings=settings,
            mistakes=mistakes,
            definition=self._weighed(xml.definition),
            maximum_kib=xml.maximum_kib,
            current_kib=xml.current_kib,
            vcpus=xml.vcpus,
            process=process,
            threads=threads,
            doubt=doubt,
        )

    def _weighed(self, definition: GuestDefinition) -> GuestDefinition:
        """Return the definition with its weight on cgroup v1's scale."""
        if definition.cpu_shares is None or self._local is None:
            return definition
        shares = definition.cpu_shares * USUAL_SHARES / self._local.usual_shares
        return replace(definition, cpu_shares=round(shares))

    def _process(self, entry: ActiveDomain, before: Guest | None) -> GuestProcess | None:
        if self._local is None:
            return None
        if before is not None and before.process is not None and before.domain_id == entry.id:
            pid, start_time = before.process
            if start_time_of(pid, self._local.proc) == start_time:
                return before.process
        return find_process(self._local.pid_folders, entry.name, self._local.proc)

    def _threads(
        self,
        uuid: str,
        process: GuestProcess | None,
        vcpus: frozenset[int],
        before: Guest | None,
    ) -> tuple[Mapping[int, int] | None, str]:
        if self._local is None:
            return None, ""
        if process is None:
            return None, "no pid file leads to its process"
        if before is not None and (before.process, before.vcpus) == (process, vcpus):
            known = before.threads
            if known is not None and _all_exist(known.values(), process.pid, self._local.proc):
                return known, ""
        return confirmed_threads(process.pid, self._local.proc, lambda: self._link.vcpus(uuid))

    def _tell_news(self, guest: Guest, before: Guest | None) -> None:
        if guest.mistakes and (before is None or before.mistakes != guest.mistakes):
            text = f"{guest.name}: {'; '.join(guest.mistakes)}"
            self._tell(Event("bad-metadata", text, guest.uuid))
        if guest.doubt and (before is None or before.doubt != guest.doubt):
            text = f"{guest.name}: CPU time comes from libvirt, which is slower: {guest.doubt}"
            self._tell(Event("slow-path", text, guest.uuid))


def _all_exist(thread_ids: Iterable[int], pid: int, proc: Path) -> bool:
    return all((proc / str(pid) / "task" / str(thread_id)).exists() for thread_id in thread_ids)
