"""The coordinator among real guests of every kind: nobody's workload dies of it.

One has no balloon, one no driver for it, one is paused, one dies while its balloon inflates, one
deflates by itself, one swaps to compressed memory. Together they get less than they have, so that
the coordinator has to take.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.control.programs import Run, memory_role, run_on
from virtbalance.control.clock import SystemClock
from virtbalance.control.role import GuestFilter
from virtbalance.control.settings import MemorySettings
from virtbalance.hypervisor import LibvirtHypervisor
from virtbalance.lab import Duty, Guest, GuestSpec, Lab
from virtbalance.lab.specs import Balloon
from virtbalance.model.memory_estimate import GuestMemoryEstimate, MemoryEstimate
from virtbalance.model.plan import Resize
from virtbalance.model.tick import Status, Tick

pytestmark = pytest.mark.lab_full

MIB = 1024
MINIMUM_MIB = 128
SPECS = {
    "bare": GuestSpec(name="k-bare", maximum_mib=256, balloon=Balloon.NONE),
    "mute": GuestSpec(name="k-mute", maximum_mib=256, balloon=Balloon.DRIVERLESS),
    "plain": GuestSpec(name="k-plain", maximum_mib=768),
    "mortal": GuestSpec(name="k-mortal", maximum_mib=768),
    "helpful": GuestSpec(name="k-helpful", maximum_mib=512, autodeflate=True),
    "swapper": GuestSpec(name="k-swapper", maximum_mib=384, current_mib=256, zram_mib=256),
}
Kinds = dict[str, Guest]


@pytest.fixture(scope="module")
def kinds(lab: Lab) -> Iterator[Kinds]:
    guests = dict(zip(SPECS, lab.start(list(SPECS.values())), strict=True))
    for guest in guests.values():
        guest.load_cpu(0, Duty(5))
    yield guests
    for guest in guests.values():
        guest.stop()


@pytest.fixture
def alive(kinds: Kinds) -> Iterator[Kinds]:
    """The guests that have not been killed; their workloads must go on after the test."""
    here = {kind: guest for kind, guest in kinds.items() if kind != "mortal"}
    before = {kind: guest.report() for kind, guest in here.items()}
    yield here
    time.sleep(1.0)
    for kind, guest in here.items():
        after = guest.report()
        assert after.iterations > before[kind].iterations, f"{kind} stands still"
        assert after.memory.kills == 0, f"the load of {kind} was killed"
        assert after.memory.now.oom_kills == 0, f"{kind} ran out of memory"
        guest.free()


def serve(
    hypervisor: LibvirtHypervisor,
    kinds: Kinds,
    directory: Path,
    ticks: int,
    together_mib: int,
    watch: Callable[[Tick], None] = lambda _: None,
) -> Run:
    """Run the coordinator for guests of this module, which get so much together."""
    ours = {str(guest.uuid) for guest in kinds.values()}
    settings = MemorySettings()
    need = replace(settings.demand.need, minimum_kib=MINIMUM_MIB * MIB)
    budget = replace(
        settings.demand.budget,
        budget_max_kib=together_mib * MIB + others_kib(hypervisor, ours),
    )
    role = memory_role(
        guests=GuestFilter(include=("k-*",)),
        demand=replace(settings.demand, need=need, budget=budget),
    )
    return run_on(hypervisor, SystemClock(), role, directory, ticks, period_s=1.0, watch=watch)


def others_kib(hypervisor: LibvirtHypervisor, ours: set[str]) -> int:
    """Return what the guests of other tests have: they are charged to the budget."""
    guests = hypervisor.sample(memory_role().scope, 2.0).guests
    return sum(g.memory.actual_kib for g in guests if g.uuid not in ours and g.memory)


def seen(tick: Tick, guest: Guest) -> GuestMemoryEstimate:
    assert isinstance(tick.estimate, MemoryEstimate)
    return next(g for g in tick.estimate.guests if g.uuid == str(guest.uuid))


def targets_mib(run: Run, guest: Guest) -> list[int]:
    """Return the sizes a guest was told to have."""
    return [
        outcome.action.target_kib // MIB
        for tick in run.ticks
        for outcome in tick.outcomes
        if isinstance(outcome.action, Resize) and outcome.action.uuid == str(guest.uuid)
    ]


def test_a_guest_without_a_balloon_or_a_driver_is_left_alone_and_charged(
    connected: Callable[[], LibvirtHypervisor], kinds: Kinds, alive: Kinds, tmp_path: Path
) -> None:
    run = serve(connected(), kinds, tmp_path, 12, together_mib=1900)
    last = run.ticks[-1]
    assert seen(last, kinds["bare"]).fixed == "it has no balloon device"
    assert seen(last, kinds["bare"]).charge_kib == 256 * MIB
    assert targets_mib(run, kinds["bare"]) == targets_mib(run, kinds["mute"]) == []
    assert seen(last, kinds["mute"]).actual_kib == 256 * MIB
    assert min(targets_mib(run, kinds["plain"])) < 700, "the others gave"


def test_a_paused_guest_is_left_alone_until_it_goes_on(
    connected: Callable[[], LibvirtHypervisor], kinds: Kinds, alive: Kinds, tmp_path: Path
) -> None:
    plain = kinds["plain"]
    plain.domain.setMemory(600 * MIB)
    time.sleep(4.0)

    def watch(tick: Tick) -> None:
        if tick.number == 3:
            plain.domain.suspend()
        if tick.number == 10:
            plain.domain.resume()

    try:
        run = serve(connected(), kinds, tmp_path, 22, 1600, watch)
    finally:
        if plain.domain.state()[0] == 3:  # VIR_DOMAIN_PAUSED
            plain.domain.resume()
    paused = [tick for tick in run.ticks if seen(tick, plain).fixed == "it is paused"]
    assert len(paused) >= 4
    commanded = {
        tick.number
        for tick in run.ticks
        for outcome in tick.outcomes
        if isinstance(outcome.action, Resize) and outcome.action.uuid == str(plain.uuid)
    }
    assert commanded.isdisjoint({tick.number for tick in paused})
    assert seen(run.ticks[-1], plain).fixed is None
    assert run.events("guest-paused")


def test_a_guest_that_deflates_by_itself_is_understood(
    connected: Callable[[], LibvirtHypervisor], kinds: Kinds, alive: Kinds, tmp_path: Path
) -> None:
    helpful = kinds["helpful"]

    def watch(tick: Tick) -> None:
        if tick.number == 12:
            helpful.allocate(260, 30)

    run = serve(connected(), kinds, tmp_path, 40, 1800, watch)
    small = min(seen(tick, helpful).actual_kib for tick in run.ticks)
    assert small < 350 * MIB, "it gave"
    last = seen(run.ticks[-1], helpful)
    assert helpful.report().memory.held_kib >= 259 * MIB
    assert 300 * MIB < last.used_kib <= last.actual_kib
    assert run.events("foreign-change") == []


def test_a_guest_under_pressure_swaps_and_lives(
    connected: Callable[[], LibvirtHypervisor], kinds: Kinds, alive: Kinds, tmp_path: Path
) -> None:
    swapper = kinds["swapper"]
    swapper.allocate(300, 40, floor_mib=0)
    time.sleep(10.0)
    run = serve(connected(), kinds, tmp_path, 25, 1900)
    report = swapper.report().memory
    assert report.held_kib >= 299 * MIB
    assert report.now.swap_free_kib < report.now.swap_total_kib
    last = seen(run.ticks[-1], swapper)
    assert last.swaps
    assert last.actual_kib > 300 * MIB, "it needed more and got it"


def test_a_guest_killed_while_its_balloon_inflates_disturbs_nobody(
    connected: Callable[[], LibvirtHypervisor], kinds: Kinds, alive: Kinds, tmp_path: Path
) -> None:
    mortal = kinds["mortal"]
    mortal.domain.setMemory(768 * MIB)
    time.sleep(3.0)
    killed_at: list[int] = []

    def watch(tick: Tick) -> None:
        asked = [o.action for o in tick.outcomes if isinstance(o.action, Resize)]
        if not killed_at and any(action.uuid == str(mortal.uuid) for action in asked):
            killed_at.append(tick.number)
            os.kill(mortal.pid, signal.SIGKILL)

    run = serve(connected(), kinds, tmp_path, 15, 1500, watch)
    assert killed_at
    assert len(run.ticks) == 15
    gone = {g.uuid for g in run.ticks[-1].snapshot.guests}
    assert str(mortal.uuid) not in gone
    late = [o for tick in run.ticks[killed_at[0] + 1 :] for o in tick.outcomes]
    assert all(outcome.status in (Status.DONE, Status.GONE) for outcome in late)
