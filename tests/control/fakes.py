"""A host and a role reduced to what the loop sees of them, under a clock only the loop moves."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from virtbalance.control.journal import Entries, Entry, PinnedVcpu
from virtbalance.model.cpu_estimate import CpuEstimate
from virtbalance.model.errors import HypervisorLostError
from virtbalance.model.guest import RoleName, VcpuKey
from virtbalance.model.hold import Hold
from virtbalance.model.memory_estimate import MemoryEstimate
from virtbalance.model.plan import Action, CpuPlan, MemoryPlan, Pin, Reason, Verdict
from virtbalance.model.snapshot import GuestSample, HostFact, Scope, Snapshot
from virtbalance.model.tick import Event, Outcome, Status, Tick
from virtbalance.model.topology import Topology, flat_topology

TOPOLOGY = flat_topology(2)
GUEST = GuestSample("u1", "web", "run-1")


def pin(cpu: int = 1, uuid: str = "u1") -> Pin:
    return Pin(VcpuKey(uuid, 0), frozenset({cpu}), Reason("test", "because"))


class FakeClock:
    def __init__(self) -> None:
        self.time_ns = 0
        self.slept_until_ns: list[int] = []

    def now_ns(self) -> int:
        return self.time_ns

    def wall_s(self) -> float:
        return self.time_ns / 1e9

    def sleep_until(self, deadline_ns: int, wake: threading.Event) -> None:
        if not wake.is_set():
            self.slept_until_ns.append(deadline_ns)
            self.time_ns = max(self.time_ns, deadline_ns)


@dataclass
class FakeHost:
    """Counts and obeys; ``lost_samples`` looks fail and so do ``failing_reconnects`` attempts."""

    clock: FakeClock
    host_id: str = "fake"
    boot_id: str = "boot"
    sample_takes_ns: Callable[[int], int] = lambda _: 0
    lost_at: frozenset[int] = frozenset()
    failing_reconnects: int = 0
    facts: tuple[HostFact, ...] = ()
    guests: tuple[GuestSample, ...] = (GUEST,)
    samples: int = 0
    reconnects: int = 0
    applied: list[Action] = field(default_factory=list)
    status: Status = Status.DONE
    before_apply: Callable[[], None] = lambda: None

    def topology(self) -> Topology:
        return TOPOLOGY

    def sample(self, scope: Scope, deadline_s: float) -> Snapshot:
        self.samples += 1
        self.clock.time_ns += self.sample_takes_ns(self.samples)
        if self.samples in self.lost_at:
            raise HypervisorLostError("libvirt is away")
        return Snapshot(
            self.clock.time_ns, self.clock.wall_s(), TOPOLOGY, self.guests, facts=self.facts
        )

    def apply(self, actions: Sequence[Action], deadline_s: float) -> tuple[Outcome, ...]:
        self.before_apply()
        self.applied += actions
        return tuple(Outcome(action, self.status) for action in actions)

    def events(self) -> tuple[Event, ...]:
        return ()

    def reconnect(self) -> None:
        self.reconnects += 1
        if self.reconnects <= self.failing_reconnects:
            raise HypervisorLostError("still away")

    def close(self) -> None:
        pass


class FakeRole:
    """Wants the pins it is given, one list a tick."""

    name = RoleName.CPU
    scope = Scope.CPU
    policy_name = "fake"
    holds: Mapping[str, Hold] = {}

    def __init__(self, *wishes: tuple[Pin, ...]) -> None:
        self.wishes = list(wishes)
        self.looks_ns: list[int] = []
        self.decisions_s: list[float] = []
        self.recorded: list[Outcome] = []
        self.adopted: list[Entries] = []
        self.fail: BaseException | None = None

    @property
    def estimate(self) -> CpuEstimate | MemoryEstimate:
        return CpuEstimate(1.0, TOPOLOGY, {0: 1.0, 1: 1.0}, ())

    def look(self, snapshot: Snapshot) -> tuple[Event, ...]:
        self.looks_ns.append(snapshot.taken_ns)
        return ()

    def decide(self, now_s: float) -> CpuPlan:
        self.decisions_s.append(now_s)
        if self.fail:
            raise self.fail
        return CpuPlan(self.wishes.pop(0) if self.wishes else ())

    def hold_plan(self) -> CpuPlan:
        return CpuPlan()

    def guard(self, plan: CpuPlan | MemoryPlan, now_s: float) -> Verdict:
        assert isinstance(plan, CpuPlan)
        return Verdict(plan.pins)

    def undo(self, actions: Sequence[Action]) -> Entries:
        vcpus = {0: PinnedVcpu(frozenset({0, 1}), (frozenset({1}),))}
        return {"u1": Entry("web", "run-1", vcpus=vcpus)}

    def record(self, outcomes: Sequence[Outcome]) -> None:
        self.recorded += outcomes

    def adopt(self, entries: Entries, snapshot: Snapshot) -> None:
        self.adopted.append(entries)

    def putting_back(
        self, entries: Entries, snapshot: Snapshot, *, keep: bool
    ) -> tuple[Action, ...]:
        if keep:
            return ()
        return tuple(
            Pin(VcpuKey(uuid, 0), entry.vcpus[0].original, Reason("restore", "as it was"))
            for uuid, entry in entries.items()
        )


class Recorder:
    """An observer that keeps everything, and tells ``watch`` of each tick."""

    def __init__(self) -> None:
        self.ticks: list[Tick] = []
        self.notices: list[Event] = []
        self.watch: Callable[[Tick], None] = lambda _: None

    def tick(self, tick: Tick) -> None:
        self.ticks.append(tick)
        self.watch(tick)

    def notice(self, event: Event) -> None:
        self.notices.append(event)
