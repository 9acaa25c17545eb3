"""A host that is not there: answers at the hypervisor's door, and keeps its own time.

``SimulatedHost`` answers as a live host would and carries out actions as libvirt would. Its
``clock`` advances it, so a loop that works against that clock runs as fast as it can compute.
Neither looking nor acting takes simulated time.

What may go wrong at the door is asked for beforehand: a connection that breaks, guests whose
answers come late, actions that fail, things that happen between a decision and its being done.
"""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from virtbalance.model.errors import HypervisorLostError
from virtbalance.model.guest import VcpuKey
from virtbalance.model.plan import Action, Pin, Resize, SetStatsPeriod, guest_of
from virtbalance.model.snapshot import (
    GuestSample,
    HostMemory,
    MemorySample,
    PcpuSample,
    Scope,
    Snapshot,
    VcpuSample,
)
from virtbalance.model.tick import Event, Outcome, Status
from virtbalance.model.topology import Topology
from virtbalance.simulation.cpu_model import Counters
from virtbalance.simulation.fluid import FluidCpu
from virtbalance.simulation.guest import SimGuest
from virtbalance.simulation.machine import SimMachine
from virtbalance.simulation.world import CpuModelMaker, LiveGuest, World

_CALL_NS = 2_000_000  # what one libvirt call is said to have taken


class SimulatedHost(World):
    """Fills ``control.hypervisor.Hypervisor``."""

    def __init__(
        self,
        machine: SimMachine,
        guests: Iterable[SimGuest] = (),
        *,
        seed: int = 0,
        cpu_model: CpuModelMaker = FluidCpu,
    ) -> None:
        super().__init__(machine, guests, seed=seed, cpu_model=cpu_model)
        self.clock = SimulatedClock(self)
        self._failing_reconnects: int | None = None
        self._before_apply: list[Callable[[], object]] = []
        self._late_until_ns: dict[str, int] = {}
        self._answers: dict[str, MemorySample] = {}
        self._failures: dict[str, list[Status]] = {}

    @property
    def host_id(self) -> str:
        """Name of this host."""
        return self.machine.host_id

    @property
    def boot_id(self) -> str:
        """Never changes: a simulation does not outlive its host's boot."""
        return self._streams.name("boot")

    def topology(self) -> Topology:
        """Return the host's CPUs as they are now."""
        self._check_connection()
        return self._topology

    # Looking

    def sample(self, scope: Scope, deadline_s: float) -> Snapshot:
        """Look at the host once."""
        del deadline_s  # a late guest is late however long one waits
        self._check_connection()
        counters = self._cpu.counters() if Scope.CPU in scope else None
        memory = Scope.MEMORY in scope
        return Snapshot(
            taken_ns=self.now_ns,
            wall_s=self.wall_s,
            topology=self._topology,
            guests=tuple(
                self._guest_sample(self.guests[uuid], counters, memory=memory)
                for uuid in sorted(self.guests)
            ),
            pcpus=() if counters is None else self._pcpu_samples(),
            memory=self._sample_host_memory() if memory else None,
        )

    def _guest_sample(
        self, guest: LiveGuest, counters: Mapping[VcpuKey, Counters] | None, *, memory: bool
    ) -> GuestSample:
        definition = guest.described.definition
        period_s = (
            definition.stats_period_s if guest.memory is None else guest.memory.stats_period_s
        )
        if period_s != definition.stats_period_s:
            definition = replace(definition, stats_period_s=period_s)
        return GuestSample(
            uuid=guest.uuid,
            name=guest.described.name,
            incarnation=guest.incarnation,
            state=guest.state,
            settings=guest.described.settings,
            definition=definition,
            vcpus=() if counters is None else self._vcpu_samples(guest, counters),
            memory=self._memory_sample(guest) if memory else None,
            memory_by_node=guest.memory_by_node if len(self._topology.nodes) > 1 else None,
        )

    def _vcpu_samples(
        self, guest: LiveGuest, counters: Mapping[VcpuKey, Counters]
    ) -> tuple[VcpuSample, ...]:
        samples = []
        for index in sorted(guest.vcpus):
            run_ns, wait_ns = counters[VcpuKey(guest.uuid, index)]
            affinity = self._effective(guest.masks[index])
            realtime = guest.vcpus[index].realtime
            samples.append(VcpuSample(index, run_ns, wait_ns, self.now_ns, affinity, realtime))
        return tuple(samples)

    def _memory_sample(self, guest: LiveGuest) -> MemorySample | None:
        if guest.memory is None:
            return None
        if self.now_ns < self._late_until_ns.get(guest.uuid, 0) and guest.uuid in self._answers:
            return self._answers[guest.uuid]._replace(late=True)
        self._answers[guest.uuid] = guest.memory.sample(self.now_s)
        return self._answers[guest.uuid]

    def _sample_host_memory(self) -> HostMemory:
        return self._host_memory.sample(self.now_s, self._memories())

    def _pcpu_samples(self) -> tuple[PcpuSample, ...]:
        busy_ns, steal_ratio = self._cpu.busy_ns(), self.machine.steal_ratio
        since_boot_s = self.now_s
        return tuple(
            PcpuSample(
                pcpu.id,
                busy_ns[pcpu.id],
                round(steal_ratio.get(pcpu.id, 0.0) * since_boot_s * 1e9),
            )
            for pcpu in self._topology.pcpus
            if pcpu.online
        )

    # Acting

    def apply(self, actions: Sequence[Action], deadline_s: float) -> tuple[Outcome, ...]:
        """Carry actions out in order."""
        del deadline_s  # no action here takes long enough to miss one
        while self._before_apply:
            self._before_apply.pop(0)()
        return tuple(self._apply(action) for action in actions)

    def _apply(self, action: Action) -> Outcome:
        uuid = guest_of(action)
        if self._failing_reconnects is not None:
            return Outcome(action, Status.REFUSED, "the simulated connection is lost")
        guest = self.guests.get(uuid)
        if guest is None:
            return Outcome(action, Status.GONE)
        failures = self._failures.get(uuid)
        if failures:
            return self._fail(action, guest, failures.pop(0))
        status, text = self._carry_out(action, guest)
        return Outcome(action, status, text, _CALL_NS)

    def _carry_out(self, action: Action, guest: LiveGuest) -> tuple[Status, str]:
        match action:
            case Pin():
                return self._pin(action, guest)
            case Resize():
                return self._resize(action, guest)
            case SetStatsPeriod():
                if guest.memory is None or not guest.described.definition.balloon:
                    return Status.REFUSED, "the guest has no balloon"
                guest.memory.stats_period_s = action.period_s
                return Status.DONE, ""

    def _pin(self, pin: Pin, guest: LiveGuest) -> tuple[Status, str]:
        if pin.vcpu.vcpu not in guest.vcpus:
            return Status.GONE, ""
        unknown = pin.cpus - self._topology.by_id.keys()
        if unknown:
            return Status.REFUSED, f"there is no pCPU {min(unknown)}"
        online = pin.cpus & self._online
        if not online:
            return Status.REFUSED, "no pCPU of this mask is on line"
        self.pin(*pin.vcpu, online)
        return Status.DONE, ""

    def _resize(self, resize: Resize, guest: LiveGuest) -> tuple[Status, str]:
        if guest.memory is None or not guest.described.definition.balloon:
            return Status.REFUSED, "the guest has no balloon"
        if not 0 < resize.target_kib <= guest.memory.maximum_kib:
            return Status.REFUSED, "the target is not between 0 and the maximum"
        self.resize(guest.uuid, resize.target_kib)
        return Status.DONE, ""

    def _fail(self, action: Action, guest: LiveGuest, status: Status) -> Outcome:
        """Let an action end so; what is late is carried out all the same, a second from now."""
        if status is Status.LATE:
            self.at(self.now_s + 1.0, lambda: self._carry_out_if_there(action, guest))
        return Outcome(action, status, "as the simulation was told", _CALL_NS)

    def _carry_out_if_there(self, action: Action, guest: LiveGuest) -> None:
        if self.guests.get(guest.uuid) is guest:
            self._carry_out(action, guest)

    # Events and the connection

    def events(self) -> tuple[Event, ...]:
        """Return what happened since the last call; nothing while the connection is lost."""
        if self._failing_reconnects is not None:
            return ()
        happened = tuple(self._happened)
        self._happened.clear()
        return happened

    def reconnect(self) -> None:
        """Fail as often as ``lose_connection`` said, then be connected again."""
        if self._failing_reconnects is None:
            return
        self._failing_reconnects -= 1
        if self._failing_reconnects >= 0:
            raise HypervisorLostError("the simulated connection can't be made")
        self._failing_reconnects = None

    def close(self) -> None:
        """Hold nothing."""

    def _check_connection(self) -> None:
        if self._failing_reconnects is not None:
            raise HypervisorLostError("the simulated connection is lost")

    # What may go wrong at the door

    def lose_connection(self, failing_reconnects: int = 0) -> None:
        """Break the connection; so many attempts to make it anew fail before one succeeds."""
        self._failing_reconnects = failing_reconnects

    def answer_late(self, uuid: str, seconds: float) -> None:
        """Let a guest's memory statistics come late for so long from now on."""
        self._late_until_ns[uuid] = self.now_ns + round(seconds * 1e9)

    def fail_actions(self, uuid: str, *statuses: Status) -> None:
        """Let the next actions on a guest end so, one each; only ``LATE`` has an effect, later."""
        self._failures.setdefault(uuid, []).extend(statuses)

    def before_apply(self, what: Callable[[], object]) -> None:
        """Let something happen between the next decision and its being carried out."""
        self._before_apply.append(what)


class SimulatedClock:
    """The host's clocks; waiting lets the host's time pass."""

    def __init__(self, host: SimulatedHost) -> None:
        self._host = host

    def now_ns(self) -> int:
        """Return the host's monotonic time."""
        return self._host.now_ns

    def wall_s(self) -> float:
        """Return seconds since 1970."""
        return self._host.wall_s

    def sleep_until(self, deadline_ns: int, wake: threading.Event) -> None:
        """Let time pass to the deadline, or until something that happens sets ``wake``."""
        self._host.advance_to(deadline_ns, wake)
