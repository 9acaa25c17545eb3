"""Counters of a host that we can only ask libvirt about."""

from collections.abc import Iterable

import libvirt

from virtbalance.hypervisor.errors import Fault, fault_of
from virtbalance.hypervisor.link import Link
from virtbalance.model.snapshot import HostMemory, PcpuSample
from virtbalance.model.topology import Pcpu


def ask_pcpus(link: Link, pcpus: Iterable[Pcpu]) -> tuple[PcpuSample, ...]:
    """Ask for the busy time of each CPU that is online, one call each; empty if not supported."""
    samples = []
    try:
        for pcpu in pcpus:
            if pcpu.online:
                spent = link.host_cpu_ns(pcpu.id)
                busy_ns = spent.get("user", 0) + spent.get("kernel", 0) + spent.get("intr", 0)
                samples.append(PcpuSample(pcpu.id, busy_ns))
    except libvirt.libvirtError as error:
        if fault_of(error) is not Fault.UNSUPPORTED:
            raise
        return ()
    return tuple(samples)


def ask_memory(link: Link) -> HostMemory | None:
    """Ask for the host's memory; ``None`` if this driver does not tell.

    What is available is estimated as free memory and all caches, because libvirt does not ask
    the kernel for its own estimate.
    """
    try:
        told = link.host_memory_kib()
    except libvirt.libvirtError as error:
        if fault_of(error) is not Fault.UNSUPPORTED:
            raise
        return None
    available = told["free"] + told.get("buffers", 0) + told.get("cached", 0)
    return HostMemory(total_kib=told["total"], available_kib=available)
