"""Simulated hosts as they are described: CPUs, memory, and the host's own use of both."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from virtbalance.model.topology import NumaNode, Pcpu, Topology, flat_topology
from virtbalance.simulation.kernel import Kernel
from virtbalance.simulation.want import MIB, Constant, Want
from virtbalance.simulation.workload import Workload

_OWN_USE = Constant(1024.0 * MIB)
_KERNEL = Kernel()


@dataclass(frozen=True, slots=True)
class SimMachine:
    """One host without its guests."""

    topology: Topology = field(default_factory=lambda: flat_topology(4))
    memory_kib: int = 16 * 1024 * MIB
    other_memory: Want = _OWN_USE
    """What the host itself uses."""
    swap_kib: int = 64 * 1024 * MIB
    other_work: Mapping[int, Workload] = field(default_factory=dict)
    """pCPU to the host's own work on it: one thread of weight 1."""
    steal_ratio: Mapping[int, float] = field(default_factory=dict)
    """pCPU to the share of time that a hypervisor below this host takes away."""
    kernel: Kernel = _KERNEL
    host_id: str = "simulated"


def layered_topology(
    nodes: int = 1,
    caches: int = 1,
    cores: int = 4,
    threads: int = 1,
    memory_kib: int = 16 * 1024 * MIB,
) -> Topology:
    """Return ``nodes`` x ``caches`` a node x ``cores`` a cache x ``threads`` a core, one by one.

    Siblings are numbered as most machines do: first threads of all cores, then second threads.
    """
    total_cores = nodes * caches * cores
    pcpus = []
    for thread in range(threads):
        for core in range(total_cores):
            cache = core // cores
            pcpus.append(
                Pcpu(
                    id=thread * total_cores + core,
                    core=core,
                    llc=cache * cores,
                    node=cache // caches,
                )
            )
    return Topology(
        tuple(pcpus), tuple(NumaNode(node, memory_kib // nodes) for node in range(nodes))
    )
