"""Recordings made by hand: a host in a few lines, with literal numbers."""

from collections.abc import Mapping, Sequence

from virtbalance.bench.recording import (
    HostFacts,
    Look,
    MemoryLook,
    Recording,
    TickNote,
    VcpuLook,
    record,
)
from virtbalance.model.guest import VcpuKey
from virtbalance.model.topology import Topology, flat_topology

MIB = 1024


def cpu_recording(
    run: Mapping[str, Sequence[float]],
    homes: Mapping[str, Sequence[int]],
    *,
    demand: Mapping[str, float] | None = None,
    wait: Mapping[str, float] | None = None,
    weights: Mapping[str, float] | None = None,
    pcpus: int = 2,
    ticks: Sequence[TickNote] = (),
    topology: Topology | None = None,
    open_guests: frozenset[str] = frozenset(),
    nodes: Mapping[str, int] | None = None,
) -> Recording:
    """Return a recording in steps of 1 s; guests of one vCPU by name.

    ``run``: pCPUs got in each step; ``homes``: CPUs it may run on, the same in every step;
    ``demand``: by default what it got in the first step.
    """
    steps = len(next(iter(run.values())))
    topology = topology or flat_topology(pcpus)
    looks = []
    for at in range(steps + 1):
        vcpus = {
            VcpuKey(name, 0): VcpuLook(
                run_s=sum(got[:at]),
                wait_s=(wait or {}).get(name, 0.0) * at,
                work_s=sum(got[:at]),
                demand_ratio=(demand or {}).get(name, got[0]),
                affinity=frozenset(homes[name]),
            )
            for name, got in run.items()
        }
        busy = dict.fromkeys((p.id for p in topology.pcpus), 0.0)
        for name, got in run.items():
            for cpu in homes[name]:
                busy[cpu] += sum(got[:at]) / len(homes[name])
        looks.append(
            Look(
                at_s=float(at),
                vcpus=vcpus,
                busy_s=busy,
                memory={},
                weights={name: (weights or {}).get(name, 1.0) for name in run},
                names={name: name for name in run},
            )
        )
    facts = HostFacts(topology, 16 * 1024 * MIB, 1.0, memory_nodes=nodes or {})
    return record(looks, ticks, facts, frozenset((name, 0) for name in open_guests))


def memory_recording(
    guests: Mapping[str, Sequence[MemoryLook | None]],
    *,
    host_mib: int = 4096,
    other_mib: float = 0.0,
    available_mib: Sequence[float] | None = None,
    excess_mib: Sequence[float] | None = None,
    weights: Mapping[str, float] | None = None,
    minimum_mib: Mapping[str, int] | None = None,
    ticks: Sequence[TickNote] = (),
) -> Recording:
    """Return a recording in steps of 1 s; one look more than steps. ``None``: not there."""
    count = len(next(iter(guests.values())))
    looks = [
        Look(
            at_s=float(at),
            vcpus={},
            busy_s={},
            memory={name: look for name, looks in guests.items() if (look := looks[at])},
            weights={name: (weights or {}).get(name, 1.0) for name in guests},
            names={name: name for name in guests},
            available_kib=(available_mib[at] if available_mib else 2048) * MIB,
            other_kib=other_mib * MIB,
            excess_kib=(excess_mib[at] if excess_mib else 0) * MIB,
        )
        for at in range(count)
    ]
    minimum_kib = {name: mib * MIB for name, mib in (minimum_mib or {}).items()}
    facts = HostFacts(flat_topology(1), host_mib * MIB, 1.0, minimum_kib=minimum_kib)
    return record(looks, ticks, facts)


def memory(
    actual_mib: float,
    want_mib: float,
    *,
    kernel_mib: float = 100.0,
    done_s: float = 0.0,
    oom_s: float = 0.0,
    cache_mib: float = 0.0,
    program: str | None = None,
) -> MemoryLook:
    """Return a guest whose kernel keeps ``kernel_mib``; it uses what it wants and has room for."""
    room_mib = actual_mib - kernel_mib
    used_mib = min(want_mib, room_mib)
    return MemoryLook(
        want_kib=want_mib * MIB,
        used_kib=used_mib * MIB,
        cache_kib=cache_mib * MIB,
        usable_kib=(room_mib - used_mib) * MIB,
        actual_kib=actual_mib * MIB,
        target_kib=actual_mib * MIB,
        performance_s=done_s,
        out_of_memory_s=oom_s,
        kills=0,
        program=program,
    )


def note(at_s: float, pins: Mapping[str, Sequence[int]] | None = None) -> TickNote:
    """Return what a tick did that only pinned."""
    return TickNote(
        at_s=at_s,
        pins={VcpuKey(name, 0): frozenset(cpus) for name, cpus in (pins or {}).items()},
        resizes=0,
        takings=(),
        refused=0,
        amendments={},
        events={},
    )
