"""Each protection turned off once: something goes wrong then, so it is needed.

Every test runs the same story twice, with the protection and without.
"""

from dataclasses import replace
from typing import Any

import pytest

from tests.memory.cases import LARGE, actual_mib, drive
from tests.memory.drive import MIB, Drive, UnsafeError
from virtbalance.memory import guard as guarding
from virtbalance.memory import shrink as shrinking
from virtbalance.memory.settings import BudgetSettings, Commit, DemandSettings, TrustSettings
from virtbalance.model.guest import GuestDefinition, GuestSettings
from virtbalance.model.memory_estimate import GuestMemoryEstimate, MemoryEstimate
from virtbalance.model.plan import DesiredSize, MemoryPlan, Reason
from virtbalance.model.topology import flat_topology
from virtbalance.simulation.guest import Balloon, SimGuest, SimMemory, Statistics
from virtbalance.simulation.host import SimulatedHost
from virtbalance.simulation.machine import SimMachine
from virtbalance.simulation.want import Constant, Steps


def a_guest(name: str, memory: SimMemory) -> SimGuest:
    return SimGuest(
        name,
        memory=memory,
        settings=GuestSettings(minimum_kib=256 * MIB),
        definition=GuestDefinition(stats_period_s=1),
    )


def on_a_host(
    *guests: SimGuest,
    budget_max_mib: int,
    trust: TrustSettings | None = None,
    commit: Commit = Commit.REPORTED,
) -> Drive:
    budget = BudgetSettings(budget_max_kib=budget_max_mib * MIB, commit=commit)
    demand = DemandSettings(budget=budget, trust=trust or TrustSettings())
    return Drive(SimulatedHost(SimMachine(flat_topology(2)), guests), demand=demand)


def test_growth_only_out_of_memory_that_has_been_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    def story() -> None:
        slow = Balloon(inflate_kib_s=20 * MIB)
        giver = a_guest("giver", SimMemory(2048 * MIB, None, Constant(200 * MIB), balloon=slow))
        taker = a_guest("taker", SimMemory(2048 * MIB, 512 * MIB, Constant(1800 * MIB)))
        on_a_host(giver, taker, budget_max_mib=2700).run(60.0)

    story()
    promised = property(lambda guest: guest.target_kib)
    monkeypatch.setattr(GuestMemoryEstimate, "committed_kib", promised)
    with pytest.raises(UnsafeError, match="committed"):
        story()


def test_a_stuck_guest_is_not_kept_trying_and_its_memory_not_counted_on() -> None:
    def story(trust: TrustSettings) -> tuple[int, int]:
        deaf = Balloon(stuck_s=((0.0, 1e9),))
        stuck = a_guest("stuck", SimMemory(4096 * MIB, None, Constant(200 * MIB), balloon=deaf))
        busy = a_guest("busy", SimMemory(2048 * MIB, 512 * MIB, Constant(600 * MIB)))
        done = on_a_host(stuck, busy, budget_max_mib=6400, trust=trust).run(20.0)
        return done.targets[done.host.uuid_of("stuck")], done.looks[-1].estimate.budget_kib

    assert story(TrustSettings()) == (4096 * MIB, 2304 * MIB)
    target_kib, budget_kib = story(TrustSettings(stuck_s=3600, crawl_s=3600))
    assert target_kib < 4096 * MIB
    assert budget_kib == 6400 * MIB


@pytest.mark.parametrize(
    "slow",
    [Balloon(inflate_kib_s=0.5 * MIB), Balloon(inflate_kib_s=20 * MIB, stuck_s=((25.0, 1e9),))],
    ids=["crawls", "stops half-way"],
)
def test_what_a_slow_giver_has_never_used_does_not_lie_idle_while_others_starve(
    slow: Balloon,
) -> None:
    def story(commit: Commit) -> float:
        unused = SimMemory(4096 * MIB, None, Constant(200 * MIB), balloon=slow, cache_kib=0)
        swap = SimMemory(4096 * MIB, 512 * MIB, Constant(3000 * MIB), swap_kib=4096 * MIB)
        hungry = [a_guest(name, swap) for name in ("one", "two")]
        done = on_a_host(a_guest("giver", unused), *hungry, budget_max_mib=5400, commit=commit)
        sizes_mib = done.run(60.0).looks[-1].actual_mib
        return sizes_mib["one"] + sizes_mib["two"]

    assert story(Commit.REPORTED) > story(Commit.STRICT) + 1000


def test_a_floor_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def story() -> None:
        idle = a_guest("idle", SimMemory(2048 * MIB, 1024 * MIB, Constant(10 * MIB), cache_kib=0))
        on_a_host(idle, budget_max_mib=4096).run(60.0)

    story()
    admit = guarding._admit

    def without(plan: Any, estimate: Any) -> Any:
        guests = [guest._replace(minimum_kib=0) for guest in estimate.guests]
        sizes = tuple(replace(size, size_kib=200 * MIB) for size in plan.sizes)
        return admit(replace(plan, sizes=sizes), replace(estimate, guests=tuple(guests)))

    monkeypatch.setattr(guarding, "_admit", without)
    with pytest.raises(UnsafeError, match="below its minimum"):
        story()


class Miser:
    """Wants everybody at the minimum."""

    name = "miser"

    def decide(
        self, state: Any, estimate: MemoryEstimate, config: Any, now_s: float
    ) -> tuple[MemoryPlan, Any]:
        reason = Reason("miser", "the less the better")
        sizes = (DesiredSize(g.uuid, g.minimum_kib, reason) for g in estimate.resizable)
        return MemoryPlan(tuple(sizes)), state


def test_nobody_is_taken_below_what_is_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    def story() -> None:
        victim = a_guest("victim", SimMemory(2048 * MIB, None, Constant(600 * MIB)))
        done = on_a_host(victim, budget_max_mib=4096)
        done.policy = Miser()
        done.run(60.0)

    story()
    monkeypatch.setattr(shrinking, "safe_kib", lambda guest, settings: 0)
    with pytest.raises(UnsafeError, match="only"):
        story()


def test_a_step_is_a_part_of_what_is_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    def story() -> None:
        rich = a_guest("rich", SimMemory(2048 * MIB, None, Constant(300 * MIB)))
        on_a_host(rich, budget_max_mib=4096).run(60.0)

    story()
    whole = lambda guest, scene: (guest.usable_kib, "all of it")  # noqa: E731
    monkeypatch.setattr(shrinking, "_largest_step", whole)
    with pytest.raises(UnsafeError, match="at once"):
        story()


def test_stale_statistics_are_no_ground_to_take_memory_away() -> None:
    def story(trust: TrustSettings) -> None:
        silent = SimMemory(
            2048 * MIB,
            None,
            Steps(((0, 200 * MIB), (5, 1800 * MIB))),
            statistics=Statistics(silent_s=((4.5, 1e9),)),
        )
        on_a_host(a_guest("silent", silent), budget_max_mib=4096, trust=trust).run(60.0)

    story(TrustSettings())
    with pytest.raises(UnsafeError, match="usable"):
        story(TrustSettings(stale_s=3600, fresh_periods=100))


def test_what_somebody_else_has_set_is_left_alone_for_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def story() -> list[float]:
        host = drive(LARGE, (None, None))
        host.run(24.0)
        host.host.resize(host.host.uuid_of("g0"), 1500 * MIB)
        return [actual_mib(host.run(seconds), "g0") for seconds in (50.0, 40.0)]

    first, then = story()
    assert first == 1500
    assert then < 1000
    monkeypatch.setattr("tests.memory.drive.observe", lambda state, *_: ((), state))
    first, _ = story()
    assert first < 1000
