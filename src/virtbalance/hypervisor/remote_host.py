"""Counters of a host that we can only ask libvirt about."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import libvirt

from virtbalance.hypervisor.errors import Fault, fault_of
from virtbalance.hypervisor.link import Link
from virtbalance.model.snapshot import HostMemory, PcpuSample, Scope

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RemoteHost:
    """What a remote host told; what its driver does not know is empty."""

    cpu_map: tuple[bool, ...] | None = None
    pcpus: tuple[PcpuSample, ...] = ()
    memory: HostMemory | None = None


def ask_host(link: Link, scope: Scope) -> RemoteHost:
    """Ask for what ``scope`` needs; libvirtError as it comes."""
    cpu_map = link.cpu_map() if Scope.CPU in scope else None
    return RemoteHost(
        cpu_map=cpu_map,
        pcpus=_if_supported(lambda: _pcpus(link, cpu_map), ()) if cpu_map else (),
        memory=_if_supported(lambda: _memory(link), None) if Scope.MEMORY in scope else None,
    )


def _pcpus(link: Link, cpu_map: Sequence[bool]) -> tuple[PcpuSample, ...]:
    """Count as busy what is not idle: only idle time is measured exactly (see ``host``)."""
    samples = []
    for cpu, online in enumerate(cpu_map):
        if not online:
            continue
        spent_ns = link.host_cpu_ns(cpu)
        if "idle" in spent_ns:
            idle_ns = spent_ns["idle"] + spent_ns.get("iowait", 0)
            samples.append(PcpuSample(cpu, time.monotonic_ns() - idle_ns))
    return tuple(samples)


def _memory(link: Link) -> HostMemory:
    """Count all caches as available, because libvirt does not hand on the kernel's estimate."""
    told = link.host_memory_kib()
    available = told["free"] + told.get("buffers", 0) + told.get("cached", 0)
    return HostMemory(total_kib=told["total"], available_kib=available)


def _if_supported(question: Callable[[], T], otherwise: T) -> T:
    try:
        return question()
    except libvirt.libvirtError as error:
        if fault_of(error) is not Fault.UNSUPPORTED:
            raise
        return otherwise
