"""Memory of guests and host: the physics of memory.md, and balloons that behave and do not."""

import pytest

from virtbalance.model.guest import GuestDefinition
from virtbalance.model.snapshot import HostMemory, MemorySample, Scope
from virtbalance.simulation.build import guest, host, uuid
from virtbalance.simulation.guest import Balloon, Lie, SimGuest, SimMemory, Statistics
from virtbalance.simulation.host import SimulatedHost
from virtbalance.simulation.machine import SimMachine
from virtbalance.simulation.memory import GuestMemoryTruth
from virtbalance.simulation.want import (
    MIB,
    Constant,
    Consume,
    Consumer,
    Ramp,
    Steps,
    WantTrace,
)

G = uuid(0)


def one(memory: SimMemory, definition: GuestDefinition | None = None) -> SimulatedHost:
    described = SimGuest(
        "g0", (), memory, definition=definition or GuestDefinition(stats_period_s=1), uuid=G
    )
    return SimulatedHost(SimMachine(), [described])


def seen(simulated: SimulatedHost, number: int = 0) -> MemorySample:
    memory = simulated.sample(Scope.MEMORY, 1.0).guests[number].memory
    assert memory is not None
    return memory


def true(simulated: SimulatedHost, number: int = 0) -> GuestMemoryTruth:
    return simulated.truth().memory[uuid(number)]


def of_host(simulated: SimulatedHost) -> HostMemory:
    memory = simulated.sample(Scope.MEMORY, 1.0).memory
    assert memory is not None
    return memory


def wants(mib: float, **others: object) -> SimMemory:
    return SimMemory(want=Constant(mib * MIB), **others)  # type: ignore[arg-type]


# What a guest shows


def test_an_idle_guest_of_512_mib_uses_306() -> None:
    simulated = one(SimMemory(maximum_kib=2048 * MIB, balloon_kib=512 * MIB))
    simulated.advance(3)
    memory = seen(simulated)
    assert memory.unused_kib is not None
    assert memory.usable_kib is not None
    assert memory.available_kib is not None
    assert (512 * MIB - memory.unused_kib) / MIB == pytest.approx(306.4, abs=0.1)
    assert memory.usable_kib / MIB == pytest.approx(320.6, abs=0.1)
    assert memory.available_kib / MIB == pytest.approx(420.6, abs=0.1)


def test_statistics_come_at_their_period() -> None:
    simulated = one(SimMemory(), GuestDefinition(stats_period_s=5))
    first = seen(simulated).last_update_s
    assert first is not None
    simulated.advance(4.75)
    assert seen(simulated).last_update_s == first
    simulated.advance(0.5)
    assert seen(simulated).last_update_s == first + 5


def test_without_a_period_there_are_no_statistics() -> None:
    memory = seen(one(SimMemory(), GuestDefinition()))
    assert (memory.last_update_s, memory.unused_kib, memory.usable_kib) == (0, None, None)


def test_statistics_lag_the_balloon() -> None:
    simulated = one(wants(100, maximum_kib=1024 * MIB), GuestDefinition(stats_period_s=10))
    simulated.resize(G, 768 * MIB)
    simulated.advance(2)
    memory = seen(simulated)
    assert memory.actual_kib == 768 * MIB
    assert memory.available_kib is not None
    assert memory.available_kib > 768 * MIB


def test_a_silent_guest_keeps_its_old_statistics() -> None:
    simulated = one(SimMemory(statistics=Statistics(silent_s=((3.0, 8.0),))))
    simulated.advance(7)
    assert seen(simulated).last_update_s == int(simulated.wall_s) - 5
    simulated.advance(3)
    assert seen(simulated).last_update_s == int(simulated.wall_s)


def test_a_guest_may_lie_about_itself_but_not_about_its_balloon() -> None:
    lie = Lie(usable_kib=0, unused_kib=0, swap_in_kib_s=2048.0, major_faults_s=100.0)
    simulated = one(wants(100, maximum_kib=1024 * MIB, statistics=Statistics(lie=lie)))
    simulated.advance(10)
    memory = seen(simulated)
    assert (memory.usable_kib, memory.unused_kib) == (0, 0)
    assert (memory.swap_in_kib, memory.major_faults) == (20480, 1000)
    assert memory.actual_kib == 1024 * MIB


def test_a_booting_guest_has_its_maximum_and_then_its_balloon() -> None:
    balloon = Balloon(ready_after_s=4.0)
    simulated = one(SimMemory(2048 * MIB, 512 * MIB, balloon=balloon))
    simulated.advance(3)
    assert (seen(simulated).actual_kib, seen(simulated).last_update_s) == (2048 * MIB, 0)
    simulated.advance(6)
    assert seen(simulated).actual_kib == 512 * MIB
    assert seen(simulated).usable_kib is not None


# What a balloon does


def test_a_balloon_inflates_at_500_and_deflates_at_1000_mib_a_second() -> None:
    simulated = one(wants(100, maximum_kib=4096 * MIB, cache_kib=0))
    simulated.resize(G, 1024 * MIB)
    simulated.advance(2)
    assert seen(simulated).actual_kib / MIB == pytest.approx(4096 - 1000, abs=1)
    simulated.advance(10)
    assert seen(simulated).actual_kib == 1024 * MIB
    simulated.resize(G, 4096 * MIB)
    simulated.advance(2)
    assert seen(simulated).actual_kib / MIB == pytest.approx(1024 + 2000, abs=1)


def test_a_balloon_takes_no_more_than_what_is_usable() -> None:
    """Reserve 30 + 3 % of 1024 = 60.7, want 500: it stops at 560.7 MiB."""
    simulated = one(wants(500, maximum_kib=1024 * MIB))
    simulated.resize(G, 520 * MIB)
    simulated.advance(10)
    assert seen(simulated).actual_kib / MIB == pytest.approx(560.7, abs=0.1)
    assert true(simulated).kills == 0


def test_asking_far_more_than_usable_kills_once() -> None:
    """Usable are 1024 - 60.7 - 500 = 463 MiB; 1.25 of that is 579."""
    simulated = one(wants(500, maximum_kib=1024 * MIB))
    simulated.resize(G, (1024 - 570) * MIB)
    simulated.advance(2)
    assert true(simulated).kills == 0
    simulated.resize(G, 1024 * MIB)
    simulated.advance(2)
    simulated.resize(G, (1024 - 590) * MIB)
    simulated.advance(2)
    assert true(simulated).kills == 1


def test_with_swap_a_balloon_pushes_further_and_the_guest_slows_down() -> None:
    simulated = one(wants(500, maximum_kib=1024 * MIB, swap_kib=1024 * MIB))
    simulated.resize(G, 300 * MIB)
    simulated.advance(20)
    assert seen(simulated).actual_kib == 300 * MIB
    shortfall = (500 - (300 - 60.72)) / 500
    assert true(simulated).performance_ratio == pytest.approx(1 / (1 + 15 * shortfall), rel=1e-3)
    assert true(simulated).out_of_memory_s == 0
    assert (seen(simulated).swap_out_kib or 0) > 260 * MIB
    assert (seen(simulated).major_faults or 0) > 1000


def test_a_coarse_balloon_moves_by_its_grain() -> None:
    balloon = Balloon(granularity_kib=4 * MIB)
    simulated = one(wants(100, maximum_kib=1024 * MIB, balloon=balloon))
    simulated.resize(G, 1021 * MIB)
    simulated.advance(2)
    assert seen(simulated).actual_kib == 1024 * MIB
    simulated.resize(G, 1013 * MIB)
    simulated.advance(2)
    assert seen(simulated).actual_kib == 1016 * MIB


def test_a_stuck_balloon_moves_when_it_is_stuck_no_longer() -> None:
    balloon = Balloon(stuck_s=((1.0, 5.0), (7.0, float("inf"))))
    simulated = one(wants(100, maximum_kib=1024 * MIB, balloon=balloon))
    simulated.advance(1)
    simulated.resize(G, 900 * MIB)
    simulated.advance(3)
    assert seen(simulated).actual_kib == 1024 * MIB
    simulated.advance(2)
    assert seen(simulated).actual_kib == 900 * MIB
    simulated.advance(2)
    simulated.resize(G, 800 * MIB)
    simulated.advance(60)
    assert seen(simulated).actual_kib == 900 * MIB


def test_without_a_driver_a_command_succeeds_and_nothing_happens() -> None:
    simulated = one(SimMemory(1024 * MIB, 512 * MIB, balloon=Balloon(present=False)))
    simulated.resize(G, 400 * MIB)
    simulated.advance(60)
    assert (seen(simulated).actual_kib, seen(simulated).last_update_s) == (1024 * MIB, 0)


def test_autodeflate_keeps_mem_total_and_opens_by_itself() -> None:
    definition = GuestDefinition(autodeflate=True, stats_period_s=1)
    want = Steps(((0, 100.0 * MIB), (20, 700.0 * MIB)))
    simulated = one(SimMemory(1024 * MIB, want=want, cache_kib=0), definition)
    before = seen(simulated).available_kib
    simulated.resize(G, 400 * MIB)
    simulated.advance(10)
    assert seen(simulated).actual_kib == 400 * MIB
    assert seen(simulated).available_kib == before
    simulated.advance(15)
    assert seen(simulated).actual_kib / MIB == pytest.approx(760.7, abs=1)
    assert true(simulated).target_kib == 400 * MIB


# What shortage costs


def test_without_swap_seconds_out_of_memory_are_counted() -> None:
    want = Steps(((0, 100.0 * MIB), (10, 900.0 * MIB), (15, 100.0 * MIB)))
    simulated = one(SimMemory(1024 * MIB, 512 * MIB, want=want))
    simulated.advance(30)
    truth = true(simulated)
    # Room 451.28: it wants 400 after 0.5 s, 500 after 0.75, 900 after 1.75 s.
    assert truth.out_of_memory_s == pytest.approx(4.25)
    lost_s = sum(
        seconds * (1 - 1 / (1 + 15 * (want_mib - 451.28) / want_mib))
        for want_mib, seconds in ((500, 0.25), (600, 0.25), (700, 0.25), (800, 0.25), (900, 3.25))
    )
    assert 30 - truth.performance_s == pytest.approx(lost_s, rel=1e-4)


def test_memory_that_is_not_asked_for_yet_is_not_lacking() -> None:
    want = Steps(((0, 100.0 * MIB), (10, 900.0 * MIB)))
    simulated = one(SimMemory(1024 * MIB, want=want))
    simulated.advance(11)
    assert true(simulated).want_kib == 600 * MIB
    assert true(simulated).performance_s == pytest.approx(11.0)


def test_a_kernel_with_swap_keeps_a_little_usable() -> None:
    simulated = one(wants(500, maximum_kib=1024 * MIB, swap_kib=1024 * MIB))
    simulated.resize(G, 300 * MIB)
    simulated.advance(30)
    # Room 300 - 60.72; 2 % of it is usable although 260.72 are lacking.
    assert true(simulated).usable_kib / MIB == pytest.approx(0.02 * 239.28, rel=0.01)
    assert true(simulated).used_kib / MIB == pytest.approx(0.98 * 239.28, rel=0.01)


def test_programs_grow_at_400_and_cache_at_100_mib_a_second() -> None:
    want = Steps(((0, 100.0 * MIB), (10, 3000.0 * MIB)))
    simulated = one(SimMemory(8192 * MIB, want=want, cache_kib=2000.0 * MIB))
    simulated.vanish(G)
    simulated.start(SimGuest("g0", (), SimMemory(8192 * MIB, want=want), uuid=G))
    simulated.advance(12)
    assert true(simulated).used_kib / MIB == pytest.approx(900, abs=101)


def test_cache_yields_to_programs_at_once_and_returns_slowly() -> None:
    want = Steps(((0, 100.0 * MIB), (10, 800.0 * MIB), (20, 100.0 * MIB)))
    simulated = one(SimMemory(1024 * MIB, want=want, cache_kib=600.0 * MIB))
    assert true(simulated).cache_kib == 0
    simulated.advance(6)
    assert true(simulated).cache_kib == 600 * MIB
    simulated.advance(9)
    assert true(simulated).used_kib == 800 * MIB
    assert true(simulated).cache_kib / MIB == pytest.approx(163.3, abs=0.1)
    simulated.advance(7)
    assert true(simulated).cache_kib / MIB == pytest.approx(163.3 + 200, abs=26)


# Consuming programs: M1 to M4's workload


def test_a_consumer_with_its_maximum_reaches_its_limit_and_frees() -> None:
    program = Consume(start_s=2.0)
    simulated = one(SimMemory(2048 * MIB, program=program))
    simulated.advance(60)
    assert true(simulated).program is Consumer.TAKING
    # 2048 - 91.4 - 100 - 48 = 1808.6 MiB at 16 MiB/s: 113 s.
    simulated.advance(54)
    assert true(simulated).program is Consumer.TAKING
    assert true(simulated).used_kib / MIB == pytest.approx(1892, abs=10)
    simulated.advance(5)
    assert true(simulated).program is Consumer.LIMIT
    assert true(simulated).used_kib == 100 * MIB


def test_a_consumer_in_a_closed_balloon_dies_early() -> None:
    simulated = one(SimMemory(2048 * MIB, 512 * MIB, program=Consume()))
    simulated.advance(30)
    assert true(simulated).program is Consumer.DIED
    assert true(simulated).out_of_memory_s == 0


def test_however_fast_a_consumer_stops_before_memory_is_out() -> None:
    simulated = one(SimMemory(2048 * MIB, 512 * MIB, program=Consume(rate_kib_s=8000.0 * MIB)))
    simulated.advance(5)
    assert true(simulated).program is Consumer.DIED
    assert true(simulated).out_of_memory_s == 0


def test_a_consumer_lives_while_its_balloon_is_opened() -> None:
    simulated = one(SimMemory(2048 * MIB, 512 * MIB, program=Consume()))
    for _ in range(120):
        simulated.resize(G, min(2048 * MIB, seen(simulated).actual_kib + 20 * MIB))
        simulated.advance(1)
    assert true(simulated).program is Consumer.LIMIT


def test_a_consumer_stops_where_it_is_told() -> None:
    simulated = one(SimMemory(2048 * MIB, program=Consume(stop_kib=512.0 * MIB)))
    simulated.advance(31)
    assert true(simulated).program is Consumer.TAKING
    simulated.advance(2)
    assert true(simulated).program is Consumer.STOPPED


# The host


def test_what_a_guest_frees_stays_with_it_until_the_balloon_takes_it() -> None:
    want = Steps(((0, 900.0 * MIB), (5, 100.0 * MIB)))
    simulated = one(SimMemory(1024 * MIB, want=want, cache_kib=0))
    simulated.advance(10)
    # 64 of it are QEMU's own.
    assert seen(simulated).rss_kib == pytest.approx((64 + 960.7) * MIB, rel=1e-3)
    before = of_host(simulated).available_kib
    simulated.resize(G, 512 * MIB)
    simulated.advance(10)
    assert seen(simulated).rss_kib == (64 + 512) * MIB
    assert of_host(simulated).available_kib - before == pytest.approx(448.7 * MIB, rel=1e-3)


def test_with_free_page_reporting_it_returns_at_once() -> None:
    want = Steps(((0, 900.0 * MIB), (5, 100.0 * MIB)))
    definition = GuestDefinition(free_page_reporting=True, stats_period_s=1)
    simulated = one(SimMemory(1024 * MIB, want=want, cache_kib=0), definition)
    simulated.advance(10)
    assert seen(simulated).rss_kib == pytest.approx((64 + 160.7) * MIB, rel=1e-3)


def test_over_use_of_the_host_slows_everyone_and_shows_as_pressure() -> None:
    """2 x (8192 + 64) in 16 GiB with 1 GiB of the host's own: 1152 MiB excess are 7.03 %."""
    memory = wants(7800, maximum_kib=8192 * MIB, cache_kib=2000.0 * MIB)
    simulated = host(1, 2, memory=memory)
    simulated.advance(60)
    assert simulated.truth().host_excess_kib == pytest.approx(1152 * MIB, rel=0.01)
    assert true(simulated).performance_ratio == pytest.approx(1 / (1 + 20 * 0.0703), rel=0.01)
    seen_host = of_host(simulated)
    assert seen_host.available_kib == 0
    assert seen_host.pressure_some_ratio == pytest.approx(1 - 1 / 2.406, rel=0.02)


def test_a_surge_of_the_hosts_own_use_takes_from_what_is_available() -> None:
    machine = SimMachine(other_memory=Steps(((0, 1024.0 * MIB), (5, 5120.0 * MIB))))
    simulated = SimulatedHost(machine, [guest(0, memory=SimMemory())])
    simulated.advance(4)
    before = of_host(simulated).available_kib
    simulated.advance(2)
    assert before - of_host(simulated).available_kib == 4096 * MIB


# Curves


@pytest.mark.parametrize(
    ("since_s", "kib"), [(0, 700), (59, 700), (60, 700), (61, 800), (100, 4700), (200, 5500)]
)
def test_a_ramp(since_s: float, kib: float) -> None:
    assert Ramp(700, 5500, 60, 100).kib(since_s) == kib


@pytest.mark.parametrize(("since_s", "kib"), [(0, 1), (9.9, 1), (10, 2), (19, 2), (20, 1), (31, 2)])
def test_steps_repeat(since_s: float, kib: float) -> None:
    assert Steps(((0, 1), (10, 2)), repeat_s=20).kib(since_s) == kib


def test_steps_must_begin_at_the_beginning() -> None:
    with pytest.raises(ValueError, match="begin at 0"):
        Steps(((1, 5),))


@pytest.mark.parametrize(("since_s", "kib"), [(0, 5), (19.9, 5), (20, 7), (40, 6), (61, 5)])
def test_a_trace_begins_again(since_s: float, kib: float) -> None:
    assert WantTrace((5, 7, 6), 20).kib(since_s) == kib
