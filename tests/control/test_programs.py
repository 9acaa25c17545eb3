"""Both programs on a simulated host: they serve, yield, and leave everything as it was."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.control.programs import affinities, cpu_role, memory_role, run
from virtbalance.control.journal import Journal
from virtbalance.control.role import GuestFilter
from virtbalance.model.guest import GuestSettings, VcpuKey
from virtbalance.model.plan import CpuPlan, MemoryPlan, Pin, Reason, Resize, SetStatsPeriod
from virtbalance.model.snapshot import Scope, Snapshot
from virtbalance.model.tick import Status
from virtbalance.simulation.build import guest, host, uuid
from virtbalance.simulation.guest import Balloon, SimMemory
from virtbalance.simulation.host import SimulatedHost
from virtbalance.simulation.want import MIB, Constant
from virtbalance.simulation.workload import hog, loop

SMALL = SimMemory(maximum_kib=2048 * MIB, balloon_kib=512 * MIB, want=Constant(300.0 * MIB))


def seconds(snapshot: Snapshot) -> float:
    return snapshot.taken_ns / 1e9


def all_on_pcpu_0() -> Any:
    return host(pcpus=2, guests=4, load=loop(0.45), pins=0)


def silent_host() -> SimulatedHost:
    """A guest whose statistics are off."""
    simulated = host(pcpus=2, guests=1, memory=SMALL)
    simulated.apply([SetStatsPeriod(uuid(0), 0, Reason("test", "off"))], 1.0)
    return simulated


def stats_period_s(simulated: SimulatedHost) -> int:
    (sample,) = simulated.sample(Scope.MEMORY, 1.0).guests
    return sample.definition.stats_period_s


class TestCpu:
    def test_four_guests_on_one_pcpu_are_spread_within_three_ticks(self, tmp_path: Path) -> None:
        simulated = all_on_pcpu_0()
        result = run(simulated, cpu_role(), tmp_path, 3, restore_on_exit=False)
        homes = sorted(tuple(mask) for mask in affinities(simulated).values())
        assert homes == [(0,), (0,), (1,), (1,)]
        assert len(result.done()) == 2

    def test_the_original_affinities_are_back_at_the_end(self, tmp_path: Path) -> None:
        simulated = all_on_pcpu_0()
        before = affinities(simulated)
        result = run(simulated, cpu_role(), tmp_path, 5)
        assert len(result.done()) == 2
        assert affinities(simulated) == before
        assert result.complete
        assert result.notices == ["restored", "restored"]

    def test_a_crash_is_undone_by_the_next_run_before_it_decides(self, tmp_path: Path) -> None:
        simulated = all_on_pcpu_0()
        before = affinities(simulated)
        run(simulated, cpu_role(), tmp_path, 3, restore_on_exit=False)
        assert affinities(simulated) != before
        seen = []

        class Look:
            name = "look"

            def decide(self, state: Any, estimate: Any, config: Any, now_s: float) -> Any:
                seen.append({vcpu.key: vcpu.affinity for vcpu in estimate.vcpus})
                return CpuPlan(), state

        run(simulated, cpu_role(Look()), tmp_path, 1)
        assert seen == [before]

    def test_somebody_elses_pin_since_a_crash_is_not_undone(self, tmp_path: Path) -> None:
        simulated = all_on_pcpu_0()
        first = run(simulated, cpu_role(), tmp_path, 3, restore_on_exit=False)
        moved, other = (action.vcpu for action in first.done())
        simulated.pin(*moved, frozenset({0, 1}))
        run(simulated, cpu_role(), tmp_path, 1)
        assert affinities(simulated)[moved] == {0, 1}
        assert affinities(simulated)[other] == {0}

    def test_a_foreign_hand_is_yielded_to_at_once_and_for_good_at_the_second_time(
        self, tmp_path: Path
    ) -> None:
        simulated = host(pcpus=4, guests=8, load=hog(), pins=0)
        victim = uuid(0)
        simulated.at(10.5, lambda: simulated.pin(victim, 0, frozenset({0, 1})))
        simulated.at(100.5, lambda: simulated.pin(victim, 0, frozenset({2, 3})))
        start_s = seconds(simulated.sample(Scope.CPU, 1.0))
        result = run(simulated, cpu_role(), tmp_path, 120, restore_on_exit=False)
        assert len(result.events("foreign-change")) == 1
        assert len(result.events("guest-released")) == 1
        assert affinities(simulated)[VcpuKey(victim, 0)] == {2, 3}
        left_alone_s = [(10.5, 70.5), (100.5, 120.0)]
        for tick in result.ticks:
            now_s = seconds(tick.snapshot) - start_s
            if any(start_s < now_s < end_s for start_s, end_s in left_alone_s):
                pins = [o.action for o in tick.outcomes if isinstance(o.action, Pin)]
                assert victim not in {pin.vcpu.uuid for pin in pins}

    def test_the_owners_word_lifts_a_hold(self, tmp_path: Path) -> None:
        simulated = host(pcpus=4, guests=8, load=hog(), pins=0)
        victim = uuid(0)
        described = simulated.guests[victim].described
        for at_s, revision in ((10.5, "now"), (30.5, "later")):
            again = replace(described, settings=GuestSettings(revision=revision))
            simulated.at(at_s, lambda: simulated.pin(victim, 0, frozenset({0, 1})))
            simulated.at(at_s + 10.0, partial(simulated.change, victim, again))
        start_s = seconds(simulated.sample(Scope.CPU, 1.0))
        result = run(simulated, cpu_role(), tmp_path, 60, restore_on_exit=False)
        assert len(result.events("foreign-change")) == 2
        held_s = [seconds(t.snapshot) - start_s for t in result.ticks if victim in t.holds]
        assert min(held_s) < 12.0
        assert max(held_s) < 42.0
        assert not [at_s for at_s in held_s if 21.5 < at_s < 30.0]

    def test_a_guest_replaced_under_the_same_name_is_not_restored_to_old_pins(
        self, tmp_path: Path
    ) -> None:
        simulated = all_on_pcpu_0()
        simulated.at(3.5, lambda: simulated.restart(uuid(0)))
        run(simulated, cpu_role(), tmp_path, 6)
        assert affinities(simulated)[VcpuKey(uuid(0), 0)] == {0}
        assert Journal(tmp_path, simulated.boot_id).entries() == {}

    @pytest.mark.parametrize("fate", ["vanish", "pause", "restart"])
    def test_a_guest_that_changes_between_decision_and_deed_is_no_trouble(
        self, tmp_path: Path, fate: str
    ) -> None:
        simulated = all_on_pcpu_0()
        for number in range(4):
            simulated.before_apply(lambda n=number: getattr(simulated, fate)(uuid(n)))
        result = run(simulated, cpu_role(), tmp_path, 5)
        assert len(result.ticks) == 5
        assert result.events("policy-failed") == []

    def test_excluded_guests_only_count_as_load(self, tmp_path: Path) -> None:
        simulated = all_on_pcpu_0()
        role = cpu_role(guests=GuestFilter(exclude=("g0", "g1")))
        result = run(simulated, role, tmp_path, 5, restore_on_exit=False)
        assert {action.vcpu.uuid for action in result.done()} == {uuid(2), uuid(3)}

    def test_a_dry_run_plans_and_changes_nothing(self, tmp_path: Path) -> None:
        simulated = all_on_pcpu_0()
        before = affinities(simulated)
        result = run(simulated, cpu_role(), tmp_path, 4, dry_run=True)
        assert affinities(simulated) == before
        statuses = {o.status for tick in result.ticks for o in tick.outcomes}
        assert statuses == {Status.PLANNED}

    def test_with_no_guests_it_waits(self, tmp_path: Path) -> None:
        simulated = host(pcpus=2, guests=0)
        simulated.at(2.5, lambda: simulated.start(guest(1, hog())))
        result = run(simulated, cpu_role(), tmp_path, 5)
        assert [len(tick.snapshot.guests) for tick in result.ticks] == [0, 0, 1, 1, 1]

    @pytest.mark.parametrize(
        "answer",
        [None, 5, (), (None, None), (CpuPlan(), 1, 2), (MemoryPlan(), None), "plan"],
    )
    def test_nonsense_from_a_policy_is_counted(self, tmp_path: Path, answer: Any) -> None:
        class Nonsense:
            name = "nonsense"

            def decide(self, state: Any, estimate: Any, config: Any, now_s: float) -> Any:
                return answer

        result = run(all_on_pcpu_0(), cpu_role(Nonsense()), tmp_path, 2)
        assert len(result.events("policy-failed")) == 2

    def test_pins_nobody_should_make_are_refused_by_the_guard(self, tmp_path: Path) -> None:
        class Wild:
            name = "wild"

            def decide(self, state: Any, estimate: Any, config: Any, now_s: float) -> Any:
                why = Reason("wild", "why not")
                key = estimate.vcpus[0].key
                pins: list[Any] = [
                    Pin(key, frozenset(), why),
                    Pin(key, frozenset({99}), why),
                    Pin(VcpuKey("nobody", 0), frozenset({0}), why),
                    Pin(VcpuKey(key.uuid, 77), frozenset({0}), why),
                    Pin(key, frozenset({"x"}), why),  # type: ignore[arg-type]
                    Pin(None, None, None),  # type: ignore[arg-type]
                    "pin it",
                ]
                return CpuPlan(tuple(pins)), state

        simulated = all_on_pcpu_0()
        before = affinities(simulated)
        result = run(simulated, cpu_role(Wild()), tmp_path, 2)
        assert affinities(simulated) == before
        assert result.done() == []
        assert len(result.ticks[-1].verdict.amendments) == 7


class TestMemory:
    def test_an_idle_guest_gives_and_a_needy_one_gets(self, tmp_path: Path) -> None:
        lazy = SimMemory(maximum_kib=2048 * MIB, want=Constant(300.0 * MIB), cache_kib=0.0)
        needy = SimMemory(
            maximum_kib=2048 * MIB, balloon_kib=512 * MIB, want=Constant(1500.0 * MIB)
        )
        simulated = host(pcpus=2, guests=2, memory=[lazy, needy])
        result = run(simulated, memory_role(), tmp_path, 60)
        last = {g.guest_name: g.actual_kib for g in result.ticks[-1].estimate.guests}  # type: ignore[union-attr]
        assert last["g1"] >= 1550 * MIB

    def test_sizes_are_kept_at_the_end_and_taken_over(self, tmp_path: Path) -> None:
        needy = SimMemory(
            maximum_kib=2048 * MIB, balloon_kib=512 * MIB, want=Constant(1500.0 * MIB)
        )
        simulated = host(pcpus=2, guests=1, memory=needy)
        first = run(simulated, memory_role(), tmp_path, 30)
        assert any(isinstance(action, Resize) for action in first.done())
        second = run(simulated, memory_role(), tmp_path, 10)
        assert second.events("foreign-change") == []

    def test_silent_balloons_are_made_to_report_and_put_back_at_the_end(
        self, tmp_path: Path
    ) -> None:
        simulated = silent_host()
        result = run(simulated, memory_role(), tmp_path, 5)
        assert [a.period_s for a in result.done() if isinstance(a, SetStatsPeriod)] == [1]
        assert stats_period_s(simulated) == 0

    def test_a_period_that_somebody_else_has_set_since_is_not_put_back(
        self, tmp_path: Path
    ) -> None:
        simulated = silent_host()
        anothers = SetStatsPeriod(uuid(0), 7, Reason("test", "an owner wants that"))
        simulated.at(5.5, lambda: simulated.apply([anothers], 1.0))
        run(simulated, memory_role(), tmp_path, 5)
        assert stats_period_s(simulated) == 7

    def test_a_period_set_before_a_crash_is_put_back_by_the_next_run(self, tmp_path: Path) -> None:
        simulated = silent_host()
        run(simulated, memory_role(), tmp_path, 3)
        # The journal names the original still; a killed run would have left our period.
        simulated.apply([SetStatsPeriod(uuid(0), 1, Reason("test", "as it was left"))], 1.0)
        run(simulated, memory_role(), tmp_path, 3)
        assert stats_period_s(simulated) == 0

    def test_a_dry_run_leaves_even_the_statistics_period(self, tmp_path: Path) -> None:
        simulated = silent_host()
        run(simulated, memory_role(), tmp_path, 5, dry_run=True)
        assert stats_period_s(simulated) == 0
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("speed_mib_s", [500.0, 50.0])
    def test_an_outside_resize_is_one_conflict_however_long_it_takes(
        self, tmp_path: Path, speed_mib_s: float
    ) -> None:
        needy = SimMemory(
            maximum_kib=2048 * MIB,
            balloon_kib=512 * MIB,
            want=Constant(700.0 * MIB),
            balloon=Balloon(inflate_kib_s=speed_mib_s * MIB, deflate_kib_s=speed_mib_s * MIB),
        )
        simulated = host(pcpus=2, guests=1, memory=needy)
        simulated.at(40.5, lambda: simulated.resize(uuid(0), 1500 * MIB))
        result = run(simulated, memory_role(), tmp_path, 60)
        assert len(result.events("foreign-change")) == 1
        assert result.events("guest-released") == []
