"""Taking notes of a simulated run: looks on an even grid, and what every tick did."""

import math
from collections import Counter
from collections.abc import Callable

from virtbalance.bench.recording import Look, MemoryLook, Taking, TickNote, VcpuLook
from virtbalance.model.cpu_estimate import CpuEstimate
from virtbalance.model.errors import HypervisorLostError
from virtbalance.model.guest import GuestState, VcpuKey
from virtbalance.model.memory_estimate import MemoryEstimate
from virtbalance.model.plan import Pin, Resize
from virtbalance.model.snapshot import Scope
from virtbalance.model.tick import Event, Status, Tick
from virtbalance.simulation.host import SimulatedHost

_CARRIED_OUT = frozenset({Status.DONE, Status.DIFFERENT, Status.LATE})


class Watcher:
    """Looks at a simulated host every so often, from its own truth and counters."""

    def __init__(
        self, host: SimulatedHost, every_s: float, progress: Callable[[float], object]
    ) -> None:
        self.looks: list[Look] = []
        self._host = host
        self._every_s = every_s
        self._progress = progress
        self._look(0)

    def _look(self, number: int) -> None:
        look = _look_at(self._host)
        if look is not None:
            self.looks.append(look)
        self._progress(self._host.now_s)
        self._host.at((number + 1) * self._every_s, lambda: self._look(number + 1))


def _look_at(host: SimulatedHost) -> Look | None:
    """Return what is so now; ``None`` while the connection that shows counters is lost."""
    try:
        snapshot = host.sample(Scope.CPU | Scope.MEMORY, 1.0)
    except HypervisorLostError:
        return None
    truth = host.truth()
    paused = {guest.uuid for guest in snapshot.guests if guest.state is not GuestState.RUNNING}
    vcpus = {}
    for guest in snapshot.guests:
        for vcpu in guest.vcpus:
            key = VcpuKey(guest.uuid, vcpu.index)
            vcpus[key] = VcpuLook(
                vcpu.run_ns / 1e9,
                (vcpu.wait_ns or 0) / 1e9,
                truth.work_s[key],
                truth.demand_ratio[key],
                vcpu.affinity or frozenset(),
            )
    memory = {
        uuid: MemoryLook(
            want_kib=m.want_kib,
            used_kib=m.used_kib,
            cache_kib=m.cache_kib,
            usable_kib=m.usable_kib,
            actual_kib=m.actual_kib,
            target_kib=m.target_kib,
            performance_s=math.nan if uuid in paused else m.performance_s,
            out_of_memory_s=m.out_of_memory_s,
            kills=m.kills,
            program=m.program,
        )
        for uuid, m in truth.memory.items()
    }
    return Look(
        at_s=host.now_s,
        vcpus=vcpus,
        busy_s={pcpu.id: pcpu.busy_ns / 1e9 for pcpu in snapshot.pcpus},
        memory=memory,
        weights={guest.uuid: guest.settings.weight for guest in snapshot.guests},
        names={guest.uuid: guest.name for guest in snapshot.guests},
        available_kib=snapshot.memory.available_kib if snapshot.memory else 0.0,
        other_kib=host.machine.other_memory.kib(host.now_s),
        excess_kib=truth.host_excess_kib,
    )


class NoteTaker:
    """An observer that keeps of every tick what metrics need."""

    def __init__(self, began_ns: int) -> None:
        self.notes: list[TickNote] = []
        self.first_failure: str | None = None
        self._began_ns = began_ns
        self._pending: Counter[str] = Counter()

    def tick(self, tick: Tick) -> None:
        """Note one tick."""
        events = Counter(event.kind for event in tick.events) + self._pending
        self._pending = Counter()
        for event in tick.events:
            if event.kind == "policy-failed" and self.first_failure is None:
                self.first_failure = event.text
        self.notes.append(note_of(tick, self._began_ns, events))

    def notice(self, event: Event) -> None:
        """Count what happened between ticks with the next one."""
        self._pending[event.kind] += 1


def note_of(tick: Tick, began_ns: int, events: Counter[str]) -> TickNote:
    """Return what a tick did, without its bulk."""
    samples = {guest.uuid: guest.memory for guest in tick.snapshot.guests}
    pins, takings, resizes, refused = {}, [], 0, 0
    for outcome in tick.outcomes:
        action = outcome.action
        if outcome.status not in _CARRIED_OUT:
            refused += outcome.status is not Status.GONE
        elif isinstance(action, Pin):
            pins[action.vcpu] = action.cpus
        elif isinstance(action, Resize):
            sample = samples.get(action.uuid)
            resizes += 1
            if sample is not None and action.target_kib < sample.actual_kib:
                taking = Taking(
                    action.uuid,
                    sample.actual_kib,
                    action.target_kib,
                    sample.usable_kib,
                    sample.maximum_kib,
                )
                takings.append(taking)
    stuck: frozenset[str] = frozenset()
    demand = {}
    if isinstance(tick.estimate, CpuEstimate):
        demand = {vcpu.key: vcpu.demand_ratio for vcpu in tick.estimate.vcpus}
    if isinstance(tick.estimate, MemoryEstimate):
        stuck = frozenset(guest.uuid for guest in tick.estimate.guests if guest.stuck)
    return TickNote(
        at_s=(tick.snapshot.taken_ns - began_ns) / 1e9,
        pins=pins,
        resizes=resizes,
        takings=tuple(takings),
        refused=refused,
        amendments=Counter(amendment.reason.rule for amendment in tick.verdict.amendments),
        events=events,
        demand=demand,
        released=frozenset(e.uuid or "" for e in tick.events if e.kind == "guest-released"),
        stuck=stuck,
    )
