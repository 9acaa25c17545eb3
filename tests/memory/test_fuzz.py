"""Random hosts, guests, faults and lies: the watchdog must be content with every tick."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.memory.drive import MIB, Drive
from virtbalance.memory.allocation import Overload
from virtbalance.memory.policies.fair import Fair
from virtbalance.memory.settings import BudgetSettings, DemandSettings
from virtbalance.model.guest import GuestDefinition, GuestSettings
from virtbalance.model.memory_estimate import MemoryEstimate
from virtbalance.model.plan import DesiredSize, MemoryPlan, Reason
from virtbalance.model.tick import Status
from virtbalance.model.topology import flat_topology
from virtbalance.simulation.guest import Balloon, Lie, SimGuest, SimMemory, Statistics
from virtbalance.simulation.host import SimulatedHost
from virtbalance.simulation.machine import SimMachine
from virtbalance.simulation.want import Consume, Steps

TICKS = 300
PARTS = 4
LONG_PARTS = 10
"""Tests are parted so that they can run side by side."""

runs = settings(suppress_health_check=[HealthCheck.too_slow])
seeds = st.integers(0, 2**32)


def test_two_reports_in_one_second() -> None:
    run(random.Random(32_817))


def test_a_guest_frees_memory_reports_and_takes_it_again_between_two_ticks() -> None:
    run(random.Random(451_062))


@pytest.mark.parametrize("part", range(PARTS))
@settings(runs, max_examples=200 // PARTS)
@given(seed=seeds)
def test_nothing_unsafe_ever_happens(seed: int, part: int) -> None:
    run(random.Random(PARTS * seed + part))


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("part", range(LONG_PARTS))
@settings(runs, max_examples=2000 // LONG_PARTS)
@given(seed=seeds)
def test_nor_in_ten_times_as_many_runs(seed: int, part: int) -> None:
    run(random.Random(LONG_PARTS * seed + part))


def run(dice: random.Random) -> None:
    """Let a random host live through random events."""
    count = dice.randint(1, 6)
    guests = [a_guest(dice, i) for i in range(count)]
    host_mib = dice.choice([4096, 6144, 16384])
    other = Steps(((0, dice.uniform(200, 1500) * MIB), (100, dice.uniform(200, 2500) * MIB)), 200)
    machine = SimMachine(flat_topology(2), host_mib * MIB, other)
    host = SimulatedHost(machine, guests, seed=dice.getrandbits(32))
    period_s = dice.choice([1.0, 1.0, 2.0, 5.0])
    liars = frozenset(
        uuid
        for uuid, live in host.guests.items()
        if live.described.memory and live.described.memory.statistics.lie
    )
    limit = dice.choice([None, None, host_mib * MIB // 2])
    drive = Drive(
        host,
        period_s,
        DemandSettings(budget=BudgetSettings(budget_max_kib=limit)),
        policy=Chaos(dice) if dice.random() < 0.3 else Fair(),
        config=Fair.Config(dice.choice(list(Overload))),
        squeezing=True,
        liars=liars,
    )
    for _ in range(dice.randint(0, 12)):
        host.at(dice.uniform(0, TICKS * period_s), an_event(dice, host))
    drive.run(TICKS * period_s)


def a_guest(dice: random.Random, number: int) -> SimGuest:
    maximum = dice.choice([512, 768, 1024, 2048, 4096])
    levels = tuple(
        (40.0 * k, dice.uniform(0.0, 1.1 if dice.random() < 0.3 else 0.6) * maximum * MIB)
        for k in range(4)
    )
    program = Consume(dice.uniform(0, 100), dice.uniform(4, 400) * MIB)
    lie = Lie(
        usable_kib=dice.choice([None, 0, 100 * MIB, 10**9]),
        unused_kib=dice.choice([None, 0, 10**9]),
        swap_in_kib_s=dice.choice([0.0, 10_000.0]),
        major_faults_s=dice.choice([0.0, 500.0]),
    )
    silent = ((dice.uniform(0, 100), dice.uniform(100, 200)),)
    return SimGuest(
        f"g{number}",
        memory=SimMemory(
            maximum * MIB,
            dice.choice([None, maximum * MIB // 2, maximum * MIB // 4]),
            Steps(levels, 160),
            program if dice.random() < 0.3 else None,
            dice.uniform(0, maximum) * MIB,
            swap_kib=dice.choice([0, 0, maximum * MIB]),
            balloon=Balloon(
                present=dice.random() > 0.1,
                inflate_kib_s=dice.choice([0.5, 20, 100, 500, 1700]) * MIB,
                deflate_kib_s=dice.choice([0.5, 250, 1000]) * MIB,
                granularity_kib=dice.choice([1, 4, 1024, 2048]),
                ready_after_s=dice.choice([0.0, 0.0, 15.0]),
                stuck_s=((50.0, 150.0),) if dice.random() < 0.2 else (),
            ),
            statistics=Statistics(
                present=dice.random() > 0.1,
                silent_s=silent if dice.random() < 0.2 else (),
                lie=lie if dice.random() < 0.2 else None,
            ),
        ),
        settings=GuestSettings(
            weight=dice.choice([0.5, 1.0, 1.0, 4.0]),
            minimum_kib=dice.choice([None, 160 * MIB, maximum * MIB // 2]),
        ),
        definition=GuestDefinition(
            stats_period_s=dice.choice([1, 1, 2, 5]),
            autodeflate=dice.random() < 0.1,
        ),
        uuid=f"{number:08x}-0000-4000-8000-000000000000",
    )


@dataclass
class Chaos:
    """Wants anything, also nonsense."""

    dice: random.Random
    name: str = "chaos"

    def decide(
        self, state: Any, estimate: MemoryEstimate, config: Any, now_s: float
    ) -> tuple[MemoryPlan, Any]:
        reason = Reason("chaos", "who knows")
        anything: list[Any] = [-1, 1.5, 10**12, 0, None]
        sizes = (
            DesiredSize(
                guest.uuid,
                self.dice.choice([*anything, self.dice.randint(0, guest.maximum_kib)]),
                reason,
            )
            for guest in estimate.guests
        )
        return MemoryPlan(tuple(sizes)), state


def an_event(dice: random.Random, host: SimulatedHost) -> Callable[[], None]:
    """Return something that can happen to a guest, if it is still there then."""
    uuid = dice.choice(sorted(host.guests))
    size = dice.uniform(0.2, 1.0)
    kind = dice.choice(["pause", "resize", "restart", "vanish", "late", "fail"])
    status = dice.choice([Status.REFUSED, Status.LATE, Status.BUSY])

    def go_on() -> None:
        if uuid in host.guests:
            host.resume(uuid)

    def happen() -> None:
        live = host.guests.get(uuid)
        if live is None or live.memory is None:
            return
        match kind:
            case "pause":
                host.pause(uuid)
                host.at(host.now_s + 40 * size, go_on)
            case "resize":
                host.resize(uuid, round(size * live.memory.maximum_kib))
            case "restart":
                host.restart(uuid)
            case "vanish":
                host.vanish(uuid)
            case "late":
                host.answer_late(uuid, 20 * size)
            case _:
                host.fail_actions(uuid, status, status)

    return happen
