"""A tiny fluid host: vCPUs that work and rest in turn, sharing pCPUs by weight, with counters.

A load of 0.37 means: alone on a pCPU it runs 0.37 of the time. Sharing one, it gets its fair part,
rests in proportion to what it got, and waits for the remainder: exactly what a closed loop does.
"""

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from virtbalance.cpu.demand import DemandState, estimate
from virtbalance.cpu.guard import GuardState, guard
from virtbalance.cpu.policies.balance import Balance, Memory
from virtbalance.cpu.settings import DemandSettings, GuardSettings, sample_period_s
from virtbalance.model.cpu_estimate import CpuEstimate
from virtbalance.model.guest import VcpuKey
from virtbalance.model.plan import Action, CpuPlan, Pin
from virtbalance.model.snapshot import GuestSample, PcpuSample, Snapshot, VcpuSample
from virtbalance.model.topology import Topology, flat_topology

Load = Callable[[float], float]
STEP_S = 0.05


@dataclass
class Vcpu:
    """One thread: its load over time, where it may run, and its counters."""

    load: Load
    affinity: frozenset[int]
    run_s: float = 0.0
    wait_s: float = 0.0
    cpu: int = -1


@dataclass
class World:
    """The host. Guests are single-vCPU unless keys say otherwise."""

    topology: Topology
    vcpus: dict[VcpuKey, Vcpu]
    now_s: float = 100.0
    busy_s: dict[int, float] = field(default_factory=dict)
    pins: list[tuple[float, Pin]] = field(default_factory=list)
    guests: dict[str, GuestSample] = field(default_factory=dict)

    def advance(self, span_s: float) -> None:
        for _ in range(round(span_s / STEP_S)):
            self._step()

    def _step(self) -> None:
        loads = {key: min(1.0, max(0.0, v.load(self.now_s))) for key, v in self.vcpus.items()}
        on = self._schedule(loads)
        for cpu, keys in on.items():
            fair = _fair_level([loads[key] for key in keys])
            for key in keys:
                vcpu, run = self.vcpus[key], min(loads[key], fair)
                rest = run * (1 - loads[key]) / loads[key] if loads[key] else 1.0
                vcpu.run_s += run * STEP_S
                vcpu.wait_s += max(0.0, 1 - run - rest) * STEP_S
                self.busy_s[cpu] = self.busy_s.get(cpu, 0.0) + run * STEP_S
        self.now_s += STEP_S

    def _schedule(self, loads: Mapping[VcpuKey, float]) -> dict[int, list[VcpuKey]]:
        """Threads confined to one CPU first, then the others where the load is least."""
        on: dict[int, list[VcpuKey]] = {pcpu.id: [] for pcpu in self.topology.pcpus if pcpu.online}
        total = dict.fromkeys(on, 0.0)
        for key in sorted(loads, key=lambda key: (len(self.vcpus[key].affinity) > 1, -loads[key])):
            cpu = min(sorted(self.vcpus[key].affinity & on.keys()), key=lambda cpu: total[cpu])
            on[cpu].append(key)
            total[cpu] += loads[key]
        return on

    def sample(self) -> Snapshot:
        now_ns = round(self.now_s * 1e9)
        by_guest: dict[str, list[VcpuSample]] = {}
        for key, vcpu in sorted(self.vcpus.items()):
            by_guest.setdefault(key.uuid, []).append(
                VcpuSample(
                    key.vcpu,
                    round(vcpu.run_s * 1e9),
                    round(vcpu.wait_s * 1e9),
                    now_ns,
                    vcpu.affinity,
                )
            )
        return Snapshot(
            taken_ns=now_ns,
            wall_s=self.now_s,
            topology=self.topology,
            guests=tuple(
                replace(self.guests.get(uuid, GuestSample(uuid, uuid, "1")), vcpus=tuple(samples))
                for uuid, samples in by_guest.items()
            ),
            pcpus=tuple(
                PcpuSample(pcpu.id, round(self.busy_s.get(pcpu.id, 0.0) * 1e9))
                for pcpu in self.topology.pcpus
            ),
        )

    def apply(self, actions: Iterable[Action]) -> None:
        for action in actions:
            assert isinstance(action, Pin)
            assert action.cpus
            assert action.cpus <= self.topology.usable
            self.vcpus[action.vcpu].affinity = action.cpus
            if len(action.cpus) == 1:  # passing through a union is not a change of its own
                self.pins.append((self.now_s, action))

    def loads(self) -> dict[int, float]:
        """What is wanted on each usable pCPU by those pinned to it."""
        total = dict.fromkeys(self.topology.usable, 0.0)
        for vcpu in self.vcpus.values():
            if len(vcpu.affinity) == 1:
                total[min(vcpu.affinity)] += vcpu.load(self.now_s)
        return total

    def counts(self) -> list[int]:
        homes = [min(v.affinity) for v in self.vcpus.values() if len(v.affinity) == 1]
        return sorted(homes.count(cpu) for cpu in self.topology.usable)

    def pins_after(self, start_s: float) -> int:
        return sum(at_s >= start_s for at_s, _ in self.pins)


@dataclass
class Scheduler:
    """The loop as the program runs it: several samples, then one decision."""

    world: World
    period_s: float
    policy: Balance = field(default_factory=Balance)
    config: Balance.Config = field(default_factory=lambda: Balance.Config(pin="cpu"))
    guard_settings: GuardSettings = field(default_factory=GuardSettings)
    demand: DemandState | None = None
    safety: GuardState | None = None
    state: Memory | None = None
    estimates: list[CpuEstimate] = field(default_factory=list)
    plans: list[CpuPlan] = field(default_factory=list)

    def run(self, span_s: float) -> None:
        for _ in range(round(span_s / self.period_s)):
            self.tick()

    def tick(self) -> None:
        sample_s = sample_period_s(self.period_s)
        settings = DemandSettings(sample_s=sample_s)
        for _ in range(round(self.period_s / sample_s)):
            self.world.advance(sample_s)
            seen, self.demand = estimate(self.demand, self.world.sample(), {}, settings)
        plan, self.state = self.policy.decide(self.state, seen, self.config, self.world.now_s)
        verdict, self.safety = guard(
            self.safety, seen, plan, {}, self.guard_settings, self.world.now_s
        )
        self.world.apply(verdict.actions)
        self.estimates.append(seen)
        self.plans.append(plan)


def _fair_level(loads: list[float]) -> float:
    """Return the highest share that all can have: sum of min(load, level) = 1."""
    left, level = 1.0, 1.0
    for rank, load in enumerate(sorted(loads)):
        level = left / (len(loads) - rank)
        if load >= level:
            return level
        left -= load
    return 1.0


def guests(
    loads: Iterable[Load], homes: Iterable[int | None], cpus: Iterable[int]
) -> dict[VcpuKey, Vcpu]:
    """Single-vCPU guests g00, g01, ...; a home of ``None`` is no pin."""
    everywhere = frozenset(cpus)
    return {
        VcpuKey(f"g{number:02}", 0): Vcpu(load, everywhere if home is None else frozenset({home}))
        for number, (load, home) in enumerate(zip(loads, homes, strict=True))
    }


def noisy(level: float, seed: int, sd: float = 0.02, start_s: float = 0.0) -> Load:
    """A load with noise that is new every 0.1 s; idle (0 to 3 %) before its start."""

    def load(now_s: float) -> float:
        rng = random.Random(f"{seed} {int(now_s * 10)}")
        return rng.uniform(0, 0.03) if now_s < start_s else rng.gauss(level, sd)

    return load


def launched(level: float, seed: int, start_s: float, sd: float = 0.02) -> Load:
    """A load that shows 85 to 100 % for the first 4 to 5 s, as guests do at launch."""
    later = noisy(level, seed, sd, start_s)
    over_s = start_s + random.Random(seed).uniform(4, 5)

    def load(now_s: float) -> float:
        if start_s <= now_s < over_s:
            return random.Random(f"{seed} {int(now_s * 10)}").uniform(0.85, 1)
        return later(now_s)

    return load


def host(pcpus: int | Topology, loads: Iterable[Load], homes: Iterable[int | None]) -> World:
    topology = flat_topology(pcpus) if isinstance(pcpus, int) else pcpus
    return World(topology, guests(loads, homes, (p.id for p in topology.pcpus)))
