"""One libvirt connection with its domains, typed: every call that crosses to libvirt is here.

Methods raise ``libvirt.libvirtError``; who calls them tells the errors apart with ``errors``.
Domain handles are looked up by UUID once and kept, because libvirt finds the guest by UUID in
every call anyway: a handle stays good when the guest is started anew.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import libvirt

METADATA_KEY = "vb"


class ActiveDomain(NamedTuple):
    """An active domain as a list shows it."""

    uuid: str
    name: str
    id: int


class VcpuInfo(NamedTuple):
    """One vCPU as ``virDomainGetVcpus`` shows it."""

    vcpu: int
    run_ns: int
    affinity: frozenset[int]


class Link:
    """One open connection."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self._domains: dict[str, Any] = {}
        self._subscriptions: list[int] = []
        self._tells_close = False

    # The connection

    def is_alive(self) -> bool:
        """Whether libvirt believes the connection to be good; asks nobody."""
        return self.connection is not None and bool(self.connection.isAlive())

    def uri(self) -> str:
        """Return the canonical URI."""
        return str(self.connection.getURI())

    def driver(self) -> str:
        """Return the driver's name in lower case (``qemu``, ``test``, ...)."""
        return str(self.connection.getType()).lower()

    def capabilities(self) -> str:
        """Return the capabilities XML."""
        return str(self.connection.getCapabilities())

    def cpu_map(self) -> tuple[bool, ...]:
        """Return which CPUs are online; its length is that of every affinity mask."""
        return tuple(bool(online) for online in self.connection.getCPUMap()[1])

    def host_cpu_ns(self, cpu: int) -> Mapping[str, int]:
        """Return time spent by one host CPU (``user``, ``kernel``, ``idle``, ``iowait``)."""
        stats: Mapping[str, int] = self.connection.getCPUStats(cpu)
        return stats

    def host_memory_kib(self) -> Mapping[str, int]:
        """Return the host's memory (``total``, ``free``, ``buffers``, ``cached``)."""
        stats: Mapping[str, int] = self.connection.getMemoryStats(
            libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS
        )
        return stats

    def try_to_change(self) -> None:
        """Make a call that only a connection for changes permits, and that does nothing.

        A server may grant reading only without saying so when the connection is opened.
        """
        self.connection.domainXMLFromNative("nothing", "", 0)

    def set_keepalive(self, interval_s: int, count: int) -> None:
        """Let libvirt notice a peer that does not answer any more."""
        self.connection.setKeepAlive(interval_s, count)

    def on_close(self, callback: Callable[[], None]) -> None:
        """Call back once when the connection breaks."""
        self.connection.registerCloseCallback(lambda _conn, _reason, _opaque: callback(), None)
        self._tells_close = True

    def on_domain_event(self, event_id: int, callback: Callable[..., None]) -> None:
        """Subscribe to one kind of event of all domains, for as long as the link is open."""
        subscription = self.connection.domainEventRegisterAny(None, event_id, callback, None)
        self._subscriptions.append(int(subscription))

    def close(self) -> None:
        """End the subscriptions and let go of the connection; may hang with the other end.

        libvirt's own close would free the connection under the feet of a thread that hangs in a
        call. Without the last reference to it, libvirt-python closes it by itself.
        """
        connection, self.connection = self.connection, None
        self._domains.clear()
        if connection is None:
            return
        # A connection that broke refuses these, but what they hold on our side is let go.
        while self._subscriptions:
            with suppress(libvirt.libvirtError):
                connection.domainEventDeregisterAny(self._subscriptions.pop())
        if self._tells_close:
            with suppress(libvirt.libvirtError):
                connection.unregisterCloseCallback()

    # Its domains

    def active(self) -> tuple[ActiveDomain, ...]:
        """List the active domains."""
        domains = self.connection.listAllDomains(libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE)
        found = [ActiveDomain(d.UUIDString(), d.name(), d.ID()) for d in domains]
        self._domains = {d.UUIDString(): d for d in domains}
        return tuple(entry for entry in found if entry.id >= 0)

    def find(self, uuid: str) -> ActiveDomain:
        """Return what the list would show of one domain; its ``id`` is -1 if it is not active."""
        self._domains.pop(uuid, None)
        domain = self._domain(uuid)
        return ActiveDomain(uuid, domain.name(), domain.ID())

    def uuid_of(self, name: str) -> str:
        """Return the UUID of the domain with this name."""
        return str(self.connection.lookupByName(name).UUIDString())

    def forget(self, uuid: str) -> None:
        """Let go of a domain's handle."""
        self._domains.pop(uuid, None)

    def state(self, uuid: str) -> int:
        """Return a ``VIR_DOMAIN_*`` state."""
        return int(self._domain(uuid).state()[0])

    def is_persistent(self, uuid: str) -> bool:
        """Whether the domain has a definition that outlives its run."""
        return bool(self._domain(uuid).isPersistent())

    def live_xml(self, uuid: str) -> str:
        """Return the XML of the running domain."""
        return str(self._domain(uuid).XMLDesc(0))

    def inactive_xml(self, uuid: str) -> str:
        """Return the persistent definition (of a transient domain: that of the running one)."""
        return str(self._domain(uuid).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))

    def vcpus(self, uuid: str) -> tuple[VcpuInfo, ...]:
        """Return run time and affinity of each vCPU; asks the kernel, not the guest's monitor."""
        infos, masks = self._domain(uuid).vcpus()
        return tuple(
            VcpuInfo(index, run_ns, cpus_of(mask))
            for (index, _state, run_ns, _cpu), mask in zip(infos, masks, strict=True)
        )

    def vcpu_statistics(self, uuid: str) -> Mapping[str, int]:
        """Return bulk statistics of one guest's vCPUs (``vcpu.N.time``, ``vcpu.N.delay``, ...)."""
        answers = self.connection.domainListGetStats(
            [self._domain(uuid)],
            libvirt.VIR_DOMAIN_STATS_VCPU,
            libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT,
        )
        statistics: Mapping[str, int] = answers[0][1] if answers else {}
        return statistics

    def memory_statistics(self, uuid: str) -> Mapping[str, int]:
        """Return ``memoryStats``; asks the guest's monitor and may hang with it."""
        statistics: Mapping[str, int] = self._domain(uuid).memoryStats()
        return statistics

    def job_type(self, uuid: str) -> int:
        """Return the ``VIR_DOMAIN_JOB_*`` type of the job that is under way."""
        return int(self._domain(uuid).jobInfo()[0])

    def affinities(self, uuid: str) -> tuple[frozenset[int], ...]:
        """Return the live affinity of vCPU 0, 1, ... up to the maximum count."""
        masks = self._domain(uuid).vcpuPinInfo(libvirt.VIR_DOMAIN_AFFECT_LIVE)
        return tuple(cpus_of(mask) for mask in masks)

    def pin(self, uuid: str, vcpu: int, mask: Sequence[bool]) -> None:
        """Set the live affinity of one vCPU. libvirt-python cuts the mask to ``cpu_map`` length."""
        self._domain(uuid).pinVcpu(vcpu, tuple(mask))

    def resize(self, uuid: str, target_kib: int) -> None:
        """Set the live balloon target."""
        self._domain(uuid).setMemoryFlags(target_kib, libvirt.VIR_DOMAIN_AFFECT_LIVE)

    def set_stats_period(self, uuid: str, period_s: int) -> None:
        """Set the live period of the balloon's statistics."""
        self._domain(uuid).setMemoryStatsPeriod(period_s, libvirt.VIR_DOMAIN_AFFECT_LIVE)

    def set_metadata(self, uuid: str, xml: str | None, namespace: str, *, config: bool) -> None:
        """Set our metadata element, live or in the persistent definition; ``None`` removes it."""
        flag = libvirt.VIR_DOMAIN_AFFECT_CONFIG if config else libvirt.VIR_DOMAIN_AFFECT_LIVE
        self._domain(uuid).setMetadata(
            libvirt.VIR_DOMAIN_METADATA_ELEMENT, xml, METADATA_KEY, namespace, flag
        )

    def _domain(self, uuid: str) -> Any:
        domain = self._domains.get(uuid)
        if domain is None:
            domain = self._domains[uuid] = self.connection.lookupByUUIDString(uuid)
        return domain


def cpus_of(mask: Sequence[bool]) -> frozenset[int]:
    """Return the CPU numbers set in one of libvirt's masks."""
    return frozenset(cpu for cpu, allowed in enumerate(mask) if allowed)
