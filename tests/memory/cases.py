"""The four memory cases of acceptance.md on a simulated host, in both sizes."""

from dataclasses import dataclass, field

from tests.memory.drive import MIB, Drive
from virtbalance.memory.settings import BudgetSettings, DemandSettings
from virtbalance.model.guest import GuestDefinition, GuestSettings
from virtbalance.model.topology import flat_topology
from virtbalance.simulation.guest import Balloon, SimGuest, SimMemory
from virtbalance.simulation.host import SimulatedHost
from virtbalance.simulation.machine import SimMachine
from virtbalance.simulation.want import Constant, Consume, Consumer


@dataclass(frozen=True)
class Size:
    """What guests look like."""

    start_mib: int
    maximum_mib: int
    minimum_mib: int
    idle_mib: int
    """Wanted by programs, besides what the kernel keeps."""
    cache_mib: int
    stop_mib: int
    back_mib: int
    """The consumer is back when it is at this or less."""
    host_mib: int
    balloon: Balloon = field(default_factory=Balloon)


LARGE = Size(512, 2048, 256, 140, 75, 512, 450, 16 * 1024)
SMALL = Size(256, 768, 160, 20, 20, 256, 300, 24 * 1024, Balloon(True, 95 * MIB, 400 * MIB))
"""As in the lab, under TCG."""


@dataclass(frozen=True)
class Case:
    """Which guests consume: ``None`` idles, 0 goes to the limit, otherwise MiB to stop at."""

    name: str
    takes_mib: tuple[int | None, ...]


def drive(
    size: Size,
    takes_mib: tuple[int | None, ...],
    *,
    period_s: float = 1.0,
    rate_mib_s: float = 18.0,
    start_s: float = 20.0,
    host_mib: int | None = None,
    budget_max_mib: int | None = None,
) -> Drive:
    """Return a host with one guest ``g<i>`` per entry; consumers begin at ``start_s``."""
    guests = [
        SimGuest(
            f"g{i}",
            memory=SimMemory(
                size.maximum_mib * MIB,
                size.start_mib * MIB,
                Constant(size.idle_mib * MIB),
                None if take is None else _consume(take, start_s, rate_mib_s),
                size.cache_mib * MIB,
                balloon=size.balloon,
            ),
            settings=GuestSettings(minimum_kib=size.minimum_mib * MIB),
            definition=GuestDefinition(stats_period_s=1),
            uuid=f"{i:08x}-0000-4000-8000-000000000000",
        )
        for i, take in enumerate(takes_mib)
    ]
    machine = SimMachine(flat_topology(2), (host_mib or size.host_mib) * MIB)
    limit_kib = None if budget_max_mib is None else budget_max_mib * MIB
    demand = DemandSettings(budget=BudgetSettings(budget_max_kib=limit_kib))
    return Drive(SimulatedHost(machine, guests), period_s, demand)


def state_of(drive: Drive, name: str) -> Consumer:
    """Return how far a guest's consumer has come."""
    state = drive.host.truth().memory[drive.host.uuid_of(name)].program
    assert state is not None
    return state


def actual_mib(drive: Drive, name: str) -> float:
    """Return the size of a guest's balloon."""
    return drive.host.truth().memory[drive.host.uuid_of(name)].actual_kib / MIB


def _consume(take_mib: int, start_s: float, rate_mib_s: float) -> Consume:
    stop_kib = take_mib * MIB if take_mib else None
    return Consume(start_s, rate_mib_s * MIB, stop_kib)
