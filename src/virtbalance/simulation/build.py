"""Whole hosts in one line, for tests and first tries."""

from collections.abc import Sequence

from virtbalance.model.topology import Topology, flat_topology
from virtbalance.simulation.fluid import FluidCpu
from virtbalance.simulation.guest import SimGuest, SimMemory, SimVcpu
from virtbalance.simulation.host import SimulatedHost
from virtbalance.simulation.machine import SimMachine
from virtbalance.simulation.workload import Workload, loop
from virtbalance.simulation.world import CpuModelMaker

_MEDIUM = loop(0.37)


def host(
    pcpus: int | Topology | SimMachine = 4,
    guests: int = 8,
    *,
    load: Workload | Sequence[Workload] = _MEDIUM,
    pins: int | Sequence[int | None] | None = None,
    vcpus: int = 1,
    memory: SimMemory | Sequence[SimMemory] | None = None,
    seed: int = 0,
    cpu_model: CpuModelMaker = FluidCpu,
) -> SimulatedHost:
    """Return a host with guests ``g0``, ``g1``, ...; their order is also that of their UUIDs.

    ``load``, ``pins`` (pCPUs on which a guest's vCPUs start; ``None``: all) and ``memory`` are one
    for all guests or one for each.
    """
    topology = flat_topology(pcpus) if isinstance(pcpus, int) else pcpus
    machine = topology if isinstance(topology, SimMachine) else SimMachine(topology)
    loads = load if isinstance(load, Sequence) else [load] * guests
    homes = pins if isinstance(pins, Sequence) else [pins] * guests
    memories = memory if isinstance(memory, Sequence) else [memory] * guests
    described = [
        guest(i, loads[i], pin=homes[i], vcpus=vcpus, memory=memories[i]) for i in range(guests)
    ]
    return SimulatedHost(machine, described, seed=seed, cpu_model=cpu_model)


def guest(
    number: int,
    load: Workload = _MEDIUM,
    *,
    pin: int | None = None,
    vcpus: int = 1,
    memory: SimMemory | None = None,
) -> SimGuest:
    """Return guest ``g<number>`` with equal vCPUs."""
    vcpu = SimVcpu(load, None if pin is None else frozenset({pin}))
    return SimGuest(f"g{number}", (vcpu,) * vcpus, memory, uuid=uuid(number))


def uuid(number: int) -> str:
    """Return the UUID of guest ``g<number>``."""
    return f"{number:08x}-0000-4000-8000-000000000000"
