"""The memory acceptance cases on real guests, scaled to 256 to 768 MiB (acceptance.md).

Here: start 256 MiB, maximum 768 MiB, minimum 160 MiB; a guest at rest uses some 70 MiB besides what
its kernel keeps. The 100 MiB that must stay usable are not scaled.
"""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.control.programs import Run, memory_role, run_on
from virtbalance.control.clock import SystemClock
from virtbalance.control.loop import Loop
from virtbalance.control.settings import MemorySettings
from virtbalance.hypervisor import LibvirtHypervisor
from virtbalance.lab import Guest, Off
from virtbalance.model.memory_estimate import MemoryEstimate
from virtbalance.model.plan import Resize
from virtbalance.model.tick import Tick

MIB = 1024
START, MAXIMUM, MINIMUM = 256 * MIB, 768 * MIB, 160 * MIB
USABLE_FLOOR = 100 * MIB
BACK = 320 * MIB
BACK_WITHIN_S = 80.0
RATE_MIB_S = 16.0

pytestmark = pytest.mark.lab


class Watch:
    """Checks every tick, and remembers when which guest had which size."""

    def __init__(self, idle: set[str]) -> None:
        self.idle = idle
        self.complaints: list[str] = []
        self.sizes_kib: dict[str, list[tuple[float, int]]] = {}

    def __call__(self, tick: Tick) -> None:
        assert isinstance(tick.estimate, MemoryEstimate)
        usable_kib = {}
        for guest in tick.estimate.guests:
            usable_kib[guest.uuid] = guest.usable_kib
            history = self.sizes_kib.setdefault(guest.guest_name, [])
            history.append((time.monotonic(), guest.actual_kib))
            if guest.actual_kib > MAXIMUM or guest.actual_kib < MINIMUM - 8 * MIB:
                self.complaints.append(f"{guest.guest_name} has {guest.actual_kib} KiB")
            if guest.guest_name in self.idle and 0 < guest.usable_kib < USABLE_FLOOR:
                self.complaints.append(f"{guest.guest_name}: {guest.usable_kib} KiB usable")
        actual_kib = {guest.uuid: guest.actual_kib for guest in tick.estimate.guests}
        for outcome in tick.outcomes:
            if isinstance(outcome.action, Resize):
                taken_kib = actual_kib[outcome.action.uuid] - outcome.action.target_kib
                left_kib = usable_kib[outcome.action.uuid] - taken_kib
                if taken_kib > 0 and left_kib < USABLE_FLOOR - 4 * MIB:
                    self.complaints.append(f"took {taken_kib} of {outcome.action.uuid}")

    def largest_kib(self, name: str) -> int:
        return max(size_kib for _, size_kib in self.sizes_kib[name])

    def back_at_s(self, name: str, since_s: float) -> float:
        """Return when the guest was small again for good, in seconds after ``since_s``."""
        above = [at_s for at_s, size_kib in self.sizes_kib[name] if size_kib > BACK]
        return max(above, default=since_s) - since_s


@pytest.fixture
def rested(four_guests: list[Guest]) -> Iterator[list[Guest]]:
    """The four guests at rest, with their start size and nothing taken."""
    for guest in four_guests:
        guest.load_cpu(0, Off())
        guest.free()
        guest.domain.setMemory(START)
    time.sleep(6.0)
    yield four_guests
    for guest in four_guests:
        guest.free()


def serve(
    hypervisor: LibvirtHypervisor, directory: Path, watch: Watch, story: Callable[[], None]
) -> Run:
    """Run the coordinator while ``story`` is told in another thread, and a while beyond it."""
    settings = MemorySettings()
    need = replace(settings.demand.need, minimum_kib=MINIMUM)
    role = memory_role(demand=replace(settings.demand, need=need))
    tellers = []

    def begin(loop: Loop) -> None:
        def tell() -> None:
            try:
                story()
            finally:
                loop.stop()

        tellers.append(threading.Thread(target=tell))
        tellers[0].start()

    run = run_on(
        hypervisor,
        SystemClock(),
        role,
        directory,
        None,
        period_s=1.0,
        watch=watch,
        begin=begin,
    )
    tellers[0].join()
    return run


def await_back(watch: Watch, name: str) -> None:
    """Wait until a guest is small again, but no longer than it may take."""
    end_s = time.monotonic() + BACK_WITHIN_S + 5.0
    while time.monotonic() < end_s and watch.sizes_kib[name][-1][1] > BACK:
        time.sleep(1.0)
    time.sleep(5.0)


def consume(guest: Guest, limit_mib: float | None) -> dict[str, Any]:
    """Let a guest take memory to a limit or to its end, then free; return how it ended."""
    guest.allocate(limit_mib, RATE_MIB_S, then_free=True)
    end_s = time.monotonic() + 150.0
    while time.monotonic() < end_s:
        memory = guest.report().memory
        if memory.outcome not in ("none", "growing"):
            return {"outcome": memory.outcome, "kills": memory.kills, "at_end": memory.at_end}
        time.sleep(0.5)
    raise AssertionError(f"{guest.name} has not come to its limit: {guest.report().memory}")


def assert_served(watch: Watch, consumers: list[Guest], ended_s: list[float]) -> None:
    """Every consumer reached its maximum and gave it back in time, and nobody was harmed."""
    assert ended_s, "a consumer died early"
    assert watch.complaints == []
    for consumer in consumers:
        assert watch.largest_kib(consumer.name) >= 0.99 * MAXIMUM
        assert watch.back_at_s(consumer.name, ended_s[0]) < BACK_WITHIN_S


def one_consumes(
    hypervisor: LibvirtHypervisor,
    guests: list[Guest],
    directory: Path,
    meanwhile: Callable[[], None] = lambda: None,
) -> Run:
    """Let the first guest consume to its limit and free; ``meanwhile`` is called 4 s into it."""
    consumer, *others = guests
    watch = Watch({guest.name for guest in others})
    ended_s: list[float] = []

    def story() -> None:
        time.sleep(5.0)
        hand = threading.Timer(4.0, meanwhile)
        hand.start()
        end = consume(consumer, None)
        hand.join()
        ended_s.append(time.monotonic())
        assert end["kills"] == 0
        await_back(watch, consumer.name)

    run = serve(hypervisor, directory, watch, story)
    assert_served(watch, [consumer], ended_s)
    return run


def test_m1_one_consumes_to_its_limit_and_gives_it_back(
    connected: Callable[[], LibvirtHypervisor], rested: list[Guest], tmp_path: Path
) -> None:
    one_consumes(connected(), rested, tmp_path)


@pytest.mark.lab_full
def test_m4_two_consume_one_stops_early_and_the_other_gets_all(
    connected: Callable[[], LibvirtHypervisor], rested: list[Guest], tmp_path: Path
) -> None:
    early, consumer, *idle = rested
    watch = Watch({guest.name for guest in idle})
    ended_s: list[float] = []

    def story() -> None:
        time.sleep(5.0)
        first = threading.Thread(target=consume, args=(early, 200.0))
        first.start()
        end = consume(consumer, None)
        first.join()
        ended_s.append(time.monotonic())
        assert end["kills"] == 0
        await_back(watch, consumer.name)

    serve(connected(), tmp_path, watch, story)
    assert_served(watch, [consumer], ended_s)


def consume_all(limits_mib: dict[str, float | None], guests: list[Guest]) -> dict[str, Any]:
    """Let several guests consume side by side; return how each ended."""
    ends: dict[str, Any] = {}

    def one(guest: Guest) -> None:
        ends[guest.name] = consume(guest, limits_mib[guest.name])

    tellers = [threading.Thread(target=one, args=(g,)) for g in guests if g.name in limits_mib]
    for teller in tellers:
        teller.start()
    for teller in tellers:
        teller.join()
    return ends


@pytest.mark.lab_full
@pytest.mark.parametrize("stop_early", [0, 2], ids=["M2", "M3"])
def test_m2_and_m3_all_four_consume_and_those_who_go_on_reach_their_maximum(
    connected: Callable[[], LibvirtHypervisor],
    rested: list[Guest],
    tmp_path: Path,
    stop_early: int,
) -> None:
    on = rested[stop_early:]
    limits = {guest.name: None if guest in on else 200.0 for guest in rested}
    watch = Watch(set())
    ends: dict[str, Any] = {}
    ended_s: list[float] = []

    def story() -> None:
        time.sleep(5.0)
        ends.update(consume_all(limits, rested))
        ended_s.append(time.monotonic())
        for guest in on:
            await_back(watch, guest.name)

    serve(connected(), tmp_path, watch, story)
    assert_served(watch, on, ended_s)
    assert {name: end["kills"] for name, end in ends.items()} == dict.fromkeys(limits, 0)


@pytest.mark.lab_full
def test_m1_though_something_sets_every_guest_back_on_the_way(
    connected: Callable[[], LibvirtHypervisor], rested: list[Guest], tmp_path: Path
) -> None:
    """The reset comes while no guest uses more than it allows; what is urgent is fed again."""

    def set_back() -> None:
        for guest in rested:
            guest.domain.setMemory(START)

    run = one_consumes(connected(), rested, tmp_path, set_back)
    assert run.events("foreign-change")
