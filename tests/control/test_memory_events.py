"""What the coordinator says of overload on a simulated host."""

from pathlib import Path

from tests.control.programs import memory_role, run
from virtbalance.model.guest import GuestSettings
from virtbalance.simulation.build import host, uuid
from virtbalance.simulation.guest import SimGuest, SimMemory
from virtbalance.simulation.host import SimulatedHost
from virtbalance.simulation.machine import SimMachine
from virtbalance.simulation.want import MIB, Constant

GREEDY = SimMemory(
    maximum_kib=6144 * MIB,
    balloon_kib=1024 * MIB,
    want=Constant(4000.0 * MIB),
    swap_kib=8192 * MIB,
)


def test_who_should_move_away_is_told_once_after_two_minutes(tmp_path: Path) -> None:
    simulated = host(SimMachine(memory_kib=8192 * MIB), guests=3, memory=GREEDY)
    result = run(simulated, memory_role(), tmp_path, 150)
    (text,) = result.events("overload")
    assert ": migrate one, best g" in text
    number = next(t.number for t in result.ticks if any(e.kind == "overload" for e in t.events))
    assert 110 < number < 140


def test_minima_that_do_not_fit_are_told_at_once(tmp_path: Path) -> None:
    promised = GuestSettings(minimum_kib=5000 * MIB)
    guests = [SimGuest(f"g{i}", memory=GREEDY, settings=promised, uuid=uuid(i)) for i in range(2)]
    simulated = SimulatedHost(SimMachine(memory_kib=8192 * MIB), guests)
    result = run(simulated, memory_role(), tmp_path, 5)
    (text,) = result.events("overcommitted")
    assert text.startswith("the guests' minima exceed what the host can give by ")
