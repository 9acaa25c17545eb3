"""The two programs whole, on any host: the production loop, roles, policies and guards."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.control.fakes import Recorder
from virtbalance.control.clock import Clock
from virtbalance.control.cpu_role import CpuRole, CpuRoleSettings
from virtbalance.control.deadline import UnlimitedDecider
from virtbalance.control.hypervisor import Hypervisor
from virtbalance.control.journal import Journal
from virtbalance.control.loop import Loop
from virtbalance.control.memory_role import MemoryRole, MemoryRoleSettings
from virtbalance.control.observers import DetachedObserver
from virtbalance.control.role import GuestFilter, Role
from virtbalance.control.settings import CpuSettings, MemorySettings, loop_settings
from virtbalance.cpu.policies.balance import Balance
from virtbalance.memory.policies.fair import Fair
from virtbalance.model.guest import VcpuKey
from virtbalance.model.reservation import Reservation
from virtbalance.model.snapshot import Scope
from virtbalance.model.tick import Status, Tick
from virtbalance.simulation.host import SimulatedHost


@dataclass
class Run:
    """What came of a run."""

    ticks: list[Tick]
    notices: list[str]
    complete: bool

    def done(self) -> list[Any]:
        return [o.action for tick in self.ticks for o in tick.outcomes if o.status is Status.DONE]

    def events(self, kind: str) -> list[str]:
        return [event.text for tick in self.ticks for event in tick.events if event.kind == kind]


def cpu_role(policy: Any = None, guests: GuestFilter = GuestFilter(), **settings: Any) -> Role:
    policy = policy or Balance()
    all_settings = CpuSettings(**settings)
    config = policy.Config() if hasattr(policy, "Config") else None
    if isinstance(policy, Balance):
        config = Balance.Config(pin="cpu")  # as the acceptance cases are written
    parts = CpuRoleSettings(all_settings.demand, all_settings.guard, guests)
    return CpuRole(policy, config, parts)


def memory_role(
    policy: Any = None,
    guests: GuestFilter = GuestFilter(),
    reservations: Callable[[], Sequence[Reservation]] = tuple,
    **settings: Any,
) -> Role:
    policy = policy or Fair()
    all_settings = MemorySettings(**settings)
    config = policy.Config() if hasattr(policy, "Config") else None
    parts = MemoryRoleSettings(all_settings.demand, all_settings.guard, guests, 1)
    return MemoryRole(policy, config, parts, reservations)


def run(host: SimulatedHost, role: Role, directory: Path, ticks: int, **settings: Any) -> Run:
    """Run a program on a simulated host for so many ticks; ``settings`` as in ``run_on``."""
    return run_on(host, host.clock, role, directory, ticks, **settings)


def run_on(
    host: Hypervisor,
    clock: Clock,
    role: Role,
    directory: Path,
    ticks: int | None,
    *,
    dry_run: bool = False,
    watch: Callable[[Tick], None] = lambda _: None,
    begin: Callable[[Loop], object] = lambda _: None,
    **settings: Any,
) -> Run:
    """Run a program for so many ticks, or until ``begin`` lets its loop be stopped.

    ``settings`` are those of its loop.
    """
    recorder = Recorder()
    recorder.watch = watch
    observer = DetachedObserver(recorder)
    period_s = settings.pop("period_s", 1.0)
    program = CpuSettings(period_s) if role.scope is Scope.CPU else MemorySettings(period_s)
    loop = Loop(
        host,
        role,
        replace(loop_settings(program, ticks), **settings),
        clock=clock,
        decider=UnlimitedDecider(),
        journal=None if dry_run else Journal(directory, host.boot_id),
        observers=[observer],
    )
    begin(loop)
    complete = loop.run()
    assert observer.finish(within_s=10.0)
    assert observer.troubles() == ()
    return Run(recorder.ticks, [event.kind for event in recorder.notices], complete)


def affinities(host: Hypervisor) -> Mapping[VcpuKey, Collection[int]]:
    snapshot = host.sample(Scope.CPU, 1.0)
    return {
        VcpuKey(guest.uuid, vcpu.index): vcpu.affinity or frozenset()
        for guest in snapshot.guests
        for vcpu in guest.vcpus
    }
