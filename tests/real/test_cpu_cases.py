"""The CPU acceptance cases on real guests: 4 of one vCPU on 2 pCPUs (acceptance.md)."""

import statistics
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.control.programs import Run, affinities, cpu_role, run_on
from tests.real.cpu_lab import (
    HEAVY_RATIO,
    LIGHT_RATIO,
    MEDIUM_RATIO,
    calibrated_count,
    iterations_per_s,
    load_all,
    place,
)
from virtbalance.bench.lab_stage import QUICK_PAUSE_US
from virtbalance.control.clock import SystemClock
from virtbalance.cpu.policies.hold import Hold
from virtbalance.hypervisor import LibvirtHypervisor
from virtbalance.lab import CountAndSleep, Guest
from virtbalance.model.cpu_estimate import CpuEstimate
from virtbalance.model.guest import VcpuKey
from virtbalance.model.plan import Pin

EVEN = [(0,), (0,), (1,), (1,)]
BOTH = frozenset({0, 1})


class Case(NamedTuple):
    """Four guests, a door to them, and the counts that make medium and heavy loads here."""

    hypervisor: LibvirtHypervisor
    guests: list[Guest]
    directory: Path

    def run(self, ticks: int, period_s: float = 1.0, policy: object = None) -> Run:
        role = cpu_role(policy)
        return run_on(
            self.hypervisor,
            SystemClock(),
            role,
            self.directory,
            ticks,
            period_s=period_s,
            restore_on_exit=False,
        )

    def start(self, ratios: Sequence[float], counts: Callable[[float], int]) -> None:
        """Load the guests, each with one of these duties."""
        for guest, ratio in zip(self.guests, ratios, strict=True):
            guest.load_cpu(0, CountAndSleep(counts(ratio), QUICK_PAUSE_US))

    def loads(self, ratios: Sequence[float]) -> list[float]:
        """Return the duties on each pCPU, with every guest where it is pinned."""
        masks = affinities(self.hypervisor)
        total = [0.0, 0.0]
        for guest, ratio in zip(self.guests, ratios, strict=True):
            (pcpu,) = masks[VcpuKey(str(guest.uuid), 0)]
            total[pcpu] += ratio
        return total

    def homes(self) -> list[tuple[int, ...]]:
        ours = {str(guest.uuid) for guest in self.guests}
        masks = affinities(self.hypervisor)
        return sorted(tuple(sorted(mask)) for key, mask in masks.items() if key.uuid in ours)


@pytest.fixture
def case(
    connected: Callable[[], LibvirtHypervisor], four_guests: list[Guest], tmp_path: Path
) -> Case:
    load_all(four_guests, None)
    hypervisor = connected()
    if len(hypervisor.topology().usable) != 2:
        pytest.skip("these cases are written for 2 pCPUs")
    return Case(hypervisor, four_guests, tmp_path)


_COUNTS: dict[float, int] = {}


@pytest.fixture
def counts(case: Case) -> Callable[[float], int]:
    """The count for a run ratio on this machine, measured once a session."""

    def count(run_ratio: float) -> int:
        if run_ratio not in _COUNTS:
            place(case.hypervisor, case.guests, (0, 1, 1, 1))
            _COUNTS[run_ratio] = calibrated_count(case.hypervisor, case.guests[0], run_ratio)
        return _COUNTS[run_ratio]

    return count


def pins_by_tick(run: Run) -> list[int]:
    """How many vCPUs were moved; the union in the middle of a swap is no move of its own."""
    return [
        len({o.action.vcpu for o in tick.outcomes if isinstance(o.action, Pin)})
        for tick in run.ticks
    ]


def story(run: Run) -> str:
    """What was seen and done at every tick, for a case that fails."""
    lines = []
    for tick in run.ticks:
        seen = tick.estimate
        assert isinstance(seen, CpuEstimate)
        room = " ".join(f"{cpu}:{capacity:.2f}" for cpu, capacity in seen.capacity.items())
        wants = " ".join(f"{v.guest_name}@{v.home} {v.demand_ratio:.2f}" for v in seen.vcpus)
        done = "; ".join(str(outcome.action.reason) for outcome in tick.outcomes)
        lines.append(f"{room} | {wants} | {done}")
    return "\n".join(lines)


@pytest.mark.lab
@pytest.mark.parametrize(
    ("start", "most_moves"), [((0, 0, 0, 0), 2), ((0, 0, 0, 1), 1)], ids=["C1", "C2"]
)
def test_guests_in_a_heap_are_evened_within_3_ticks_and_stay(
    case: Case, counts: Callable[[float], int], start: tuple[int, ...], most_moves: int
) -> None:
    count = counts(MEDIUM_RATIO)
    place(case.hypervisor, case.guests, start)
    load_all(case.guests, count)
    run = case.run(15)
    assert case.homes() == EVEN
    assert sum(pins_by_tick(run)[3:]) == 0, story(run)
    assert sum(pins_by_tick(run)) <= most_moves


@pytest.mark.lab_full
@pytest.mark.parametrize("run_ratio", [MEDIUM_RATIO, None], ids=["C3", "C6"])
def test_what_is_even_is_left_alone_for_60_s(
    case: Case, counts: Callable[[float], int], run_ratio: float | None
) -> None:
    count = counts(run_ratio) if run_ratio else None
    place(case.hypervisor, case.guests, (0, 1, 0, 1))
    load_all(case.guests, count)
    run = case.run(60)
    assert sum(pins_by_tick(run)) == 0, story(run)


@pytest.mark.lab_full
@pytest.mark.parametrize(
    "ratios", [[MEDIUM_RATIO] * 4, [HEAVY_RATIO, LIGHT_RATIO] * 2], ids=["C4", "C5"]
)
def test_guests_without_affinity_get_a_fixed_even_mapping(
    case: Case, counts: Callable[[float], int], ratios: list[float]
) -> None:
    for ratio in ratios:
        counts(ratio)
    place(case.hypervisor, case.guests, [BOTH] * 4)
    case.start(ratios, counts)
    run = case.run(30)
    assert case.loads(ratios) == pytest.approx([sum(ratios) / 2] * 2), story(run)
    assert sum(pins_by_tick(run)) <= 4, story(run)
    assert sum(pins_by_tick(run)[20:]) == 0, story(run)


@pytest.mark.lab_full
def test_c7_when_half_turn_heavy_it_is_even_again_within_10_s(
    case: Case, counts: Callable[[float], int]
) -> None:
    light, turned = [LIGHT_RATIO] * 4, [HEAVY_RATIO] * 2 + [LIGHT_RATIO] * 2
    for ratio in (LIGHT_RATIO, HEAVY_RATIO):
        counts(ratio)
    place(case.hypervisor, case.guests, [BOTH] * 4)
    case.start(light, counts)
    turn = threading.Timer(10.0, case.start, (turned, counts))
    turn.start()
    run = case.run(32)
    turn.join()
    assert case.loads(turned) == pytest.approx([HEAVY_RATIO + LIGHT_RATIO] * 2), story(run)
    assert sum(pins_by_tick(run)[11:]) <= 2, story(run)
    assert sum(pins_by_tick(run)[20:]) == 0, story(run)


@pytest.mark.lab
def test_a_period_of_a_tenth_of_a_second_works(case: Case, counts: Callable[[float], int]) -> None:
    count = counts(MEDIUM_RATIO)
    place(case.hypervisor, case.guests, (0, 0, 0, 0))
    load_all(case.guests, count)
    run = case.run(80, period_s=0.1)
    assert case.homes() == EVEN
    assert sum(pins_by_tick(run)[-20:]) == 0
    seconds = (run.ticks[-1].snapshot.taken_ns - run.ticks[0].snapshot.taken_ns) / 1e9
    assert seconds == pytest.approx(7.9, rel=0.25)


@pytest.mark.lab_full
def test_heavy_guests_in_a_heap_get_done_what_two_pcpus_allow(
    case: Case, counts: Callable[[float], int]
) -> None:
    """What two pCPUs allow is seen by hand: together they may do 1.6 to 2 times what one does."""
    count = counts(HEAVY_RATIO)
    heap, halves = (0, 0, 0, 0), (0, 0, 1, 1)
    turns: dict[str, tuple[Sequence[int], object]] = {
        "heap": (heap, Hold()),
        "by hand": (halves, Hold()),
        "balanced": (heap, None),
    }
    done: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(3):
        for name, (places, policy) in turns.items():
            place(case.hypervisor, case.guests, places)
            load_all(case.guests, count)
            runner = threading.Thread(target=case.run, args=(14,), kwargs={"policy": policy})
            runner.start()
            iterations_per_s(case.guests, 6.0)  # time to be spread
            done[name].append(iterations_per_s(case.guests, 7.0))
            runner.join()
    possible = [b / a for a, b in zip(done["heap"], done["by hand"], strict=True)]
    # risen / possible of each round, in which the heap cancels out
    reached = [b / a for a, b in zip(done["by hand"], done["balanced"], strict=True)]
    assert statistics.median(possible) > 1.3, done
    assert statistics.median(reached) >= 0.85, done
