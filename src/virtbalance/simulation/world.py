"""What is on a simulated host, how its time passes, and what may happen on it.

Time passes only in ``advance_to``. Whatever may happen (guests that come, go, pause or are
replaced, other hands that pin and resize) has a method of that name, to be called at once or ``at``
a time. Memory goes in steps on a fixed grid, so that looking at the host more often does not change
what happens to it; the CPU models have rules of their own.
"""

import heapq
import itertools
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from virtbalance.model.guest import GuestState, VcpuKey
from virtbalance.model.tick import Event
from virtbalance.model.topology import Topology
from virtbalance.simulation.cpu_model import CpuModel, Thread
from virtbalance.simulation.fluid import FluidCpu
from virtbalance.simulation.guest import SimGuest, SimVcpu
from virtbalance.simulation.machine import SimMachine
from virtbalance.simulation.memory import STEP_S, GuestMemory, GuestMemoryTruth, HostMemoryModel
from virtbalance.simulation.streams import Streams
from virtbalance.simulation.want import MIB

BOOT_NS = 1_000_000_000_000
"""Monotonic time at which a simulation begins; not 0, so that nobody relies on it."""
BOOT_WALL_S = 1_800_000_000.0

_SOME_KIB = 1024 * MIB
"""Memory of a guest whose memory is not simulated."""

CpuModelMaker = Callable[[SimMachine, Streams], CpuModel]


@dataclass(frozen=True, slots=True)
class Truth:
    """What is really so, for metrics; no policy sees it."""

    now_s: float
    """Since the simulation began."""
    work_s: Mapping[VcpuKey, float]
    """Work done since the vCPU started, in seconds of a pCPU of speed 1."""
    demand_ratio: Mapping[VcpuKey, float]
    """What each vCPU would use of a free pCPU now."""
    memory: Mapping[str, GuestMemoryTruth]
    """By guest UUID."""
    host_excess_kib: int
    """Memory in use beyond what the host has."""


@dataclass(slots=True)
class LiveGuest:
    """One guest while it is there."""

    described: SimGuest
    uuid: str
    incarnation: str
    memory: GuestMemory | None
    state: GuestState = GuestState.RUNNING
    vcpus: dict[int, SimVcpu] = field(default_factory=dict)
    masks: dict[int, frozenset[int]] = field(default_factory=dict)
    """By vCPU: CPUs it has been told to run on; the kernel leaves out those that are off line."""

    @property
    def memory_by_node(self) -> Mapping[int, int] | None:
        """KiB by NUMA node; ``None``: its memory is near everywhere."""
        node, memory = self.described.memory_node, self.described.memory
        if node is None:
            return None
        return {node: _SOME_KIB if memory is None else memory.maximum_kib}


class World:
    """One machine with its guests."""

    def __init__(
        self,
        machine: SimMachine,
        guests: Iterable[SimGuest] = (),
        *,
        seed: int = 0,
        cpu_model: CpuModelMaker = FluidCpu,
    ) -> None:
        self.now_ns = BOOT_NS
        self.machine = machine
        self.guests: dict[str, LiveGuest] = {}
        self._topology = machine.topology
        self._online = _online(machine.topology)
        self._streams = Streams(seed)
        self._cpu = cpu_model(machine, self._streams)
        self._host_memory = HostMemoryModel(machine)
        self._numbers = itertools.count(1)
        self._due: list[tuple[int, int, Callable[[], object]]] = []
        self._happened: list[Event] = []
        self._start_host_work()
        for guest in guests:
            self.start(guest)
        self._happened.clear()

    # Time

    @property
    def now_s(self) -> float:
        """Seconds since the simulation began."""
        return (self.now_ns - BOOT_NS) / 1e9

    @property
    def wall_s(self) -> float:
        """Seconds since 1970, as the host's wall clock says."""
        return BOOT_WALL_S + self.now_s

    def advance(self, seconds: float) -> None:
        """Let so much time pass."""
        self.advance_to(self.now_ns + round(seconds * 1e9))

    def advance_to(self, to_ns: int, wake: threading.Event | None = None) -> None:
        """Let time pass and what is due happen; end early once ``wake`` is set."""
        while True:
            self._do_due()
            if self.now_ns >= to_ns or (wake is not None and wake.is_set()):
                return
            self._pass_time(min([to_ns, *(due[0] for due in self._due[:1])]))

    def at(self, time_s: float, what: Callable[[], object]) -> None:
        """Let something happen when so many seconds of the simulation have passed."""
        due_ns = max(BOOT_NS + round(time_s * 1e9), self.now_ns)
        heapq.heappush(self._due, (due_ns, next(self._numbers), what))

    def _do_due(self) -> None:
        while self._due and self._due[0][0] <= self.now_ns:
            heapq.heappop(self._due)[2]()

    def _pass_time(self, to_ns: int) -> None:
        memories = self._memories()
        if not memories:
            self._go_to(to_ns)
            return
        grid_ns = round(STEP_S * 1e9)
        while self.now_ns < to_ns:
            next_ns = min(to_ns, (self.now_ns // grid_ns + 1) * grid_ns)
            dt_s = (next_ns - self.now_ns) / 1e9
            self._go_to(next_ns)
            self._host_memory.advance(self.now_s, dt_s, memories)
            for memory in memories:
                memory.tell(self.now_s, self.wall_s)

    def _memories(self) -> list[GuestMemory]:
        return [guest.memory for guest in self.guests.values() if guest.memory is not None]

    def _go_to(self, to_ns: int) -> None:
        self.now_ns = to_ns
        self._cpu.advance(self.now_s)

    # Guests come, go and stop

    def start(self, described: SimGuest) -> str:
        """Let a guest start; return its UUID."""
        uuid = described.uuid or _as_uuid(self._streams.name("uuid", described.name))
        if uuid in self.guests:
            raise ValueError(f"guest {described.name} is there already")
        memory = None
        if described.memory is not None:
            memory = GuestMemory(described.memory, described.definition, self.now_s)
        guest = LiveGuest(described, uuid, f"{uuid[:8]}-{next(self._numbers)}", memory)
        self.guests[uuid] = guest
        for index, vcpu in enumerate(described.vcpus):
            self._start_vcpu(guest, index, vcpu)
        if memory is not None:
            memory.tell(self.now_s, self.wall_s)
        self._happen("guest-started", guest)
        return uuid

    def vanish(self, uuid: str) -> None:
        """Let a guest end, however that came about."""
        guest = self.guests.pop(uuid)
        for index in guest.vcpus:
            self._cpu.remove(VcpuKey(uuid, index))
        self._happen("guest-stopped", guest)

    def restart(self, uuid: str) -> None:
        """Let a guest end and the same guest start anew."""
        described = replace(self.guests[uuid].described, uuid=uuid)
        self.vanish(uuid)
        self.start(described)

    def substitute(self, uuid: str) -> str:
        """Let a guest end and another start under its name; return the new UUID."""
        described = self.guests[uuid].described
        self.vanish(uuid)
        fresh = _as_uuid(self._streams.name("uuid", described.name, next(self._numbers)))
        return self.start(replace(described, uuid=fresh))

    def pause(self, uuid: str) -> None:
        """Stop a guest's vCPUs, its balloon and its statistics."""
        self._set_state(uuid, GuestState.PAUSED)

    def resume(self, uuid: str) -> None:
        """Let a paused guest go on."""
        self._set_state(uuid, GuestState.RUNNING)

    def _set_state(self, uuid: str, state: GuestState) -> None:
        guest = self.guests[uuid]
        if guest.state is state:
            return
        guest.state = state
        paused = state is GuestState.PAUSED
        for index in guest.vcpus:
            self._cpu.pause(VcpuKey(uuid, index), paused=paused)
        if guest.memory is not None:
            guest.memory.paused = paused
        self._happen("guest-paused" if paused else "guest-resumed", guest)

    def change(self, uuid: str, described: SimGuest) -> None:
        """Let the owner change settings or definition.

        Work, memory, shares and quota stay as they were when the guest started.
        """
        self.guests[uuid].described = described

    # vCPUs and pCPUs

    def plug(self, uuid: str, index: int, vcpu: SimVcpu) -> None:
        """Add a vCPU to a running guest."""
        self._start_vcpu(self.guests[uuid], index, vcpu)

    def unplug(self, uuid: str, index: int) -> None:
        """Take a vCPU out of a running guest."""
        guest = self.guests[uuid]
        del guest.vcpus[index], guest.masks[index]
        self._cpu.remove(VcpuKey(uuid, index))

    def pin(self, uuid: str, index: int, cpus: frozenset[int]) -> None:
        """Set where a vCPU may run, whoever's hand it is."""
        if not cpus & self._online:
            raise ValueError(f"none of pCPUs {sorted(cpus)} is on line")
        self.guests[uuid].masks[index] = cpus
        self._cpu.allow(VcpuKey(uuid, index), self._effective(cpus))

    def set_online(self, cpu: int, *, online: bool) -> None:
        """Take a pCPU on line or off; threads left without any may run anywhere, as in Linux."""
        pcpus = [
            replace(pcpu, online=online) if pcpu.id == cpu else pcpu
            for pcpu in self._topology.pcpus
        ]
        self._topology = replace(self._topology, pcpus=tuple(pcpus))
        self._online = _online(self._topology)
        if online:
            self._cpu.set_topology(self._topology)
        for guest in self.guests.values():
            for index, mask in guest.masks.items():
                self._cpu.allow(VcpuKey(guest.uuid, index), self._effective(mask))
        for host_cpu in self.machine.other_work:
            self._cpu.allow(VcpuKey("", host_cpu), self._effective(frozenset({host_cpu})))
        if not online:
            self._cpu.set_topology(self._topology)

    def affinity(self, uuid: str, index: int) -> frozenset[int]:
        """Return where a vCPU may run now."""
        return self._effective(self.guests[uuid].masks[index])

    def _effective(self, mask: frozenset[int]) -> frozenset[int]:
        # the same object where nothing is cut off: it is compared at every look
        return mask if mask <= self._online else mask & self._online or self._online

    def _start_vcpu(self, guest: LiveGuest, index: int, vcpu: SimVcpu) -> None:
        # Threads inherit the CPUs that the kernel balances over: isolated ones are not among them.
        mask = vcpu.affinity or guest.described.definition.cpuset or self._topology.usable
        guest.vcpus[index], guest.masks[index] = vcpu, mask
        name = f"{guest.described.name}/{index}"
        thread = Thread(
            key=VcpuKey(guest.uuid, index),
            workload=vcpu.workload,
            source=self._streams.stream("lengths", name),
            stream=name,
            group=guest.uuid,
            shares=guest.described.shares,
            quota_ratio=guest.described.definition.quota_ratio,
            memory_node=guest.described.memory_node,
        )
        self._cpu.add(thread, self._effective(mask))

    def _start_host_work(self) -> None:
        for cpu, workload in sorted(self.machine.other_work.items()):
            name = f"host/{cpu}"
            source = self._streams.stream("lengths", name)
            thread = Thread(VcpuKey("", cpu), workload, source, name, group=name)
            self._cpu.add(thread, self._effective(frozenset({cpu})))

    # Memory

    def resize(self, uuid: str, target_kib: int) -> None:
        """Set a balloon's target, whoever's hand it is."""
        memory = self.guests[uuid].memory
        if memory is None:
            raise ValueError(f"guest {uuid} has no memory in this simulation")
        memory.set_target(target_kib)

    # What is so

    def truth(self) -> Truth:
        """Return what is really so now."""
        return Truth(
            now_s=self.now_s,
            work_s=_of_guests(self._cpu.work_s()),
            demand_ratio=_of_guests(self._cpu.demand_ratio()),
            memory={
                uuid: guest.memory.truth()
                for uuid, guest in self.guests.items()
                if guest.memory is not None
            },
            host_excess_kib=round(self._host_memory.excess_kib),
        )

    def uuid_of(self, name: str) -> str:
        """Return the UUID of the guest that has this name now."""
        return next(uuid for uuid, g in self.guests.items() if g.described.name == name)

    def _happen(self, kind: str, guest: LiveGuest) -> None:
        what = kind.removeprefix("guest-")
        self._happened.append(Event(kind, f"{guest.described.name} {what}", guest.uuid))


def _online(topology: Topology) -> frozenset[int]:
    return frozenset(pcpu.id for pcpu in topology.pcpus if pcpu.online)


def _of_guests(values: Mapping[VcpuKey, float]) -> dict[VcpuKey, float]:
    """Leave out the host's own threads."""
    return {key: value for key, value in values.items() if key.uuid}


def _as_uuid(digits: str) -> str:
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
