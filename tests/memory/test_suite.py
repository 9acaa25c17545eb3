"""The bench's memory scenarios, every tick of them under the eyes of the watchdog."""

from dataclasses import dataclass, field

import pytest

from tests.memory.drive import Watchdog
from virtbalance.bench import runner
from virtbalance.bench.building import Built, build
from virtbalance.bench.library import find
from virtbalance.bench.results import Job
from virtbalance.bench.schema import Scenario
from virtbalance.bench.watching import NoteTaker
from virtbalance.control.settings import MemorySettings
from virtbalance.model.plan import Resize
from virtbalance.model.snapshot import GuestSample, Snapshot
from virtbalance.model.tick import Status, Tick
from virtbalance.simulation.host import SimulatedHost

SHORT = ("s6", "s8", "s11")
"""A stuck driver, arrivals, no swap."""
LONG = tuple(
    scenario.name
    for scenario in find(["memory-suite", "m?/16-gib/2s"])
    # The watchdog knows targets from commands alone: not that a size set by hand became one.
    if not any(event.kind == "resize" for event in scenario.events)
)


@dataclass
class Eye:
    """Sees what was done from outside: snapshots, commands and the simulation's truth."""

    host: SimulatedHost
    settings: MemorySettings
    ticks: int = 0
    targets_kib: dict[str, int] = field(default_factory=dict)
    _incarnations: dict[str, str] = field(default_factory=dict)
    _minima_kib: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        budget = self.settings.demand.budget
        self._watchdog = Watchdog(
            self.host,
            self.settings.period_s,
            budget.budget_max_kib,
            self._minima_kib,
            squeezing=True,
            commit=budget.commit,
        )

    def see(self, tick: Tick) -> None:
        """Check one tick. UnsafeError if something must not have been done."""
        self._note(tick.snapshot)
        done = [
            outcome.action
            for outcome in tick.outcomes
            if isinstance(outcome.action, Resize) and outcome.status in (Status.DONE, Status.LATE)
        ]
        self._watchdog.check(tick.snapshot, self.targets_kib, done)
        self.targets_kib.update({resize.uuid: resize.target_kib for resize in done})
        self.ticks += 1

    def _note(self, snapshot: Snapshot) -> None:
        for guest in snapshot.guests:
            if self._incarnations.get(guest.uuid) != guest.incarnation:
                self._incarnations[guest.uuid] = guest.incarnation
                self.targets_kib.pop(guest.uuid, None)
            self._minima_kib[guest.uuid] = self._minimum_kib(guest)

    def _minimum_kib(self, guest: GuestSample) -> int:
        if guest.settings.minimum_kib is not None or guest.memory is None:
            return guest.settings.minimum_kib or 0
        need, maximum_kib = self.settings.demand.need, guest.memory.maximum_kib
        return min(maximum_kib, max(need.minimum_kib, round(need.minimum_ratio * maximum_kib)))


def watched(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> Eye:
    """Play a scenario with the default policy."""
    settings = runner.program_settings(scenario)
    assert isinstance(settings, MemorySettings)
    eyes: list[Eye] = []

    class Watching(NoteTaker):
        def tick(self, tick: Tick) -> None:
            eyes[0].see(tick)
            super().tick(tick)

    def built(scenario: Scenario, seed: int) -> Built:
        made = build(scenario, seed)
        eyes.append(Eye(made.host, settings))
        return made

    monkeypatch.setattr(runner, "build", built)
    monkeypatch.setattr(runner, "NoteTaker", Watching)
    runner.run(Job(scenario, "fair", 0))
    return eyes[0]


@pytest.mark.parametrize("name", SHORT)
def test_nothing_unsafe_is_done(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (scenario,) = find([name])
    eye = watched(scenario, monkeypatch)
    assert eye.ticks > 0.95 * scenario.duration_s / scenario.period_s
    assert eye.targets_kib, "something is done"


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", LONG)
def test_nor_in_any_of_the_suite(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (scenario,) = find([name])
    assert watched(scenario, monkeypatch).ticks > 0
