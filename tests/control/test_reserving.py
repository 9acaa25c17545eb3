"""The coordinator on a simulated host while somebody reserves memory for a guest to come."""

from pathlib import Path

import pytest

from tests.control.programs import Run, memory_role, run
from virtbalance.model.memory_estimate import MemoryEstimate
from virtbalance.model.plan import Resize
from virtbalance.model.reservation import Reservation
from virtbalance.model.tick import Tick
from virtbalance.simulation.build import guest, host, uuid
from virtbalance.simulation.guest import Balloon, SimMemory
from virtbalance.simulation.host import SimulatedHost
from virtbalance.simulation.machine import SimMachine
from virtbalance.simulation.want import MIB, Constant
from virtbalance.simulation.workload import hog

GIB = 1024 * MIB
LAZY = SimMemory(maximum_kib=4 * GIB, want=Constant(600.0 * MIB), cache_kib=2000.0 * MIB)
"""It has 4 GiB, uses 0.6 and has filled 2 with cache."""


def reserving(
    simulated: SimulatedHost, directory: Path, reservations: list[Reservation], ticks: int = 60
) -> Run:
    role = memory_role(reservations=lambda: tuple(reservations))
    return run(simulated, role, directory, ticks)


def small_host(*memories: SimMemory) -> SimulatedHost:
    machine = SimMachine(memory_kib=16 * GIB)
    return host(machine, guests=len(memories), memory=memories)


def estimate_of(tick: Tick) -> MemoryEstimate:
    assert isinstance(tick.estimate, MemoryEstimate)
    return tick.estimate


def test_what_is_reserved_is_freed_in_seconds_and_stays_free(tmp_path: Path) -> None:
    simulated = small_host(LAZY, LAZY, LAZY)
    reservations: list[Reservation] = []
    ours = Reservation(6 * GIB, frozenset(uuid(i) for i in range(3)))
    simulated.at(20.5, lambda: reservations.append(ours))
    result = reserving(simulated, tmp_path, reservations)
    free = [tick.number for tick in result.ticks if estimate_of(tick).reserved_free_kib == 6 * GIB]
    assert free
    assert free[0] < 40
    assert free == list(range(free[0], 61)), "it is never taken again"
    # It is really there, the host's reserve on top.
    last = result.ticks[-1].snapshot.memory
    assert last is not None
    assert last.available_kib > 6 * GIB + estimate_of(result.ticks[-1]).reserve_kib


def test_it_is_given_back_when_it_ends(tmp_path: Path) -> None:
    simulated = small_host(LAZY, LAZY, LAZY)
    reservations = [Reservation(6 * GIB, frozenset(uuid(i) for i in range(3)))]
    simulated.at(40.5, reservations.clear)
    result = reserving(simulated, tmp_path, reservations, ticks=80)
    small = sum(g.actual_kib for g in estimate_of(result.ticks[35]).guests)
    assert sum(g.actual_kib for g in estimate_of(result.ticks[-1]).guests) > small + GIB


def test_the_guest_that_comes_has_it_and_nobody_is_shrunk_for_it_again(tmp_path: Path) -> None:
    simulated = small_host(LAZY, LAZY, LAZY)
    ours = Reservation(6 * GIB, frozenset(uuid(i) for i in range(3)))
    newcomer = SimMemory(maximum_kib=6 * GIB, want=Constant(5000.0 * MIB), cache_kib=0.0)
    simulated.at(45.5, lambda: simulated.start(guest(9, hog(), memory=newcomer)))
    result = reserving(simulated, tmp_path, [ours], ticks=70)
    late = [tick for tick in result.ticks if tick.number > 46]
    shrunk = [
        outcome.action
        for tick in late
        for outcome in tick.outcomes
        if isinstance(outcome.action, Resize)
        and outcome.action.target_kib
        < next(g.target_kib for g in estimate_of(tick).guests if g.uuid == outcome.action.uuid)
    ]
    assert shrunk == []
    assert all(estimate_of(tick).reserved_kib == 0 for tick in late)
    for tick in late:
        assert tick.snapshot.memory is not None
        assert tick.snapshot.memory.available_kib > 0.5 * estimate_of(tick).reserve_kib


@pytest.mark.parametrize("size_mib", [40, 300, 600])
def test_the_last_mib_is_freed_too_although_nobody_gives_little(
    tmp_path: Path, size_mib: int
) -> None:
    busy = SimMemory(maximum_kib=2 * GIB, want=Constant(900.0 * MIB), cache_kib=300.0 * MIB)
    simulated = host(SimMachine(memory_kib=16 * GIB), guests=12, memory=busy)
    reservations: list[Reservation] = []
    ours = Reservation(size_mib * MIB, frozenset(uuid(i) for i in range(12)))
    simulated.at(60.5, lambda: reservations.append(ours))
    result = reserving(simulated, tmp_path, reservations, ticks=120)
    assert estimate_of(result.ticks[-1]).reserved_free_kib == size_mib * MIB


def test_nobody_is_taken_below_what_it_uses_for_it(tmp_path: Path) -> None:
    simulated = small_host(LAZY, LAZY, LAZY)
    ours = Reservation(16 * GIB, frozenset(uuid(i) for i in range(3)))
    result = reserving(simulated, tmp_path, [ours], ticks=60)
    last = estimate_of(result.ticks[-1])
    assert last.reserved_free_kib < 16 * GIB
    for served in last.guests:
        assert served.actual_kib >= served.used_kib + 100 * MIB - 1
        assert served.actual_kib < 1200 * MIB
    whys = {note.reason.figures["why"] for note in result.ticks[-1].verdict.amendments}
    assert whys
    assert all("is not safe" in str(why) for why in whys)


def test_a_guest_with_swap_is_not_squeezed_for_it(tmp_path: Path) -> None:
    swapper = SimMemory(
        maximum_kib=4 * GIB,
        balloon_kib=1 * GIB,
        want=Constant(1100.0 * MIB),
        swap_kib=4 * GIB,
        balloon=Balloon(),
    )
    simulated = small_host(swapper, LAZY)
    ours = Reservation(16 * GIB, frozenset({uuid(0), uuid(1)}))
    result = reserving(simulated, tmp_path, [ours], ticks=60)
    sizes = [g.actual_kib for t in result.ticks for g in estimate_of(t).guests if g.uuid == uuid(0)]
    assert min(sizes) >= 1 * GIB
