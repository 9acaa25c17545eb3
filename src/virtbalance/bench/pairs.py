"""Contenders in turn on the same guests: what these get done under one, as a ratio of the other.

A machine is not equally fast from one minute to the next, so what is compared has to run close
together. In every round each contender has one turn, in the opposite order of the round before;
real guests stay where they are between turns, simulated ones meet the same demands. Ratios are
taken inside a round, then the median over rounds with its bootstrap interval. What guests get done
before a turn's ``measure_from_s`` does not count.

Example: 4 guests that want 0.4 each are pinned to one of two pCPUs. Left alone they get 1.0 done
together, spread 1.6, so the ratio of sums is 1.6; the worst guest's is the ratio of the least that
any guest got of what it wanted, here 0.4 / 0.25 = 1.6 as well.

Real machines are not equally fast within a round either. How fast this one was is measured beside
(``machine_speed``), and from five rounds on each ratio is told a second time as it would be, had
the machine been equally fast in both turns (``adjusted``).
"""

import contextlib
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import numpy as np

from virtbalance.bench.contenders import make_role
from virtbalance.bench.lab_look import nominal_demand
from virtbalance.bench.played import Played
from virtbalance.bench.recording import Floats
from virtbalance.bench.runner import play, program_settings
from virtbalance.bench.schema import GuestTable, Scenario
from virtbalance.bench.statistics import Summary, adjusted, summarize
from virtbalance.control.config import ConfigError
from virtbalance.model.guest import RoleName
from virtbalance.ui.text import table

_HEADINGS = (
    "scenario",
    "ratio",
    "sum",
    "worst guest",
    "sum at equal speed",
    "worst guest at equal speed",
    "pairs",
)

_PlayTurn = Callable[[str, int], tuple[Played, float | None]]
"""Plays a contender's turn in a round; returns the machine's speed, too."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What guests got done under one contender; works in pCPUs of full speed."""

    scenario: str
    on: str
    policy: str
    round: int
    work: Mapping[str, float]
    """By guest."""
    total: float
    least: float
    """The least that any guest got of what it wants."""
    pins: int
    """Affinities changed, warm-up included."""
    machine_speed: float | None
    """As ``SpeedProbe`` has it; ``None`` on a simulated host."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """How the first contender compares with another over all rounds."""

    scenario: str
    policy: str
    against: str
    rounds: int
    total: Summary | None
    least: Summary | None
    """None where somebody got nothing under the other one in every round."""
    total_at_equal_speed: Summary | None
    least_at_equal_speed: Summary | None
    """None on a simulated host, and below five rounds."""


def turns(
    scenario: Scenario, policies: Sequence[str], rounds: int, on: str
) -> Generator[Turn, None, None]:
    """Yield every turn when it is over; closing it ends the guests.

    Raises ``ConfigError``, ``PolicyError``.
    """
    for yes, why in (
        (scenario.role is not RoleName.CPU, "it is not about vCPUs"),
        (scenario.trace is not None, "its guests are made of a trace"),
        (scenario.measure_from_s >= scenario.duration_s, "measure_from_s is beyond its end"),
    ):
        if yes:
            raise ConfigError(f"{scenario.name} can't be paired: {why}")
    with _host(scenario, on) as play_turn:
        for number in range(rounds):
            for policy in policies if number % 2 == 0 else reversed(policies):
                played, speed = play_turn(policy, number)
                if played.first_failure is not None:
                    raise ConfigError(f"{policy}: {played.first_failure}")
                yield _turn(scenario, on, policy, number, played, speed)


@contextlib.contextmanager
def _host(scenario: Scenario, on: str) -> Iterator[_PlayTurn]:
    settings = program_settings(scenario)

    def play_simulated(policy: str, seed: int) -> tuple[Played, None]:
        role, thinking = make_role(policy, settings)
        return play(scenario, settings, role, thinking, seed, _untold), None

    if on == "sim":
        yield play_simulated
        return
    from virtbalance.bench.lab_run import play_on, staged
    from virtbalance.bench.machine_speed import SpeedProbe

    with staged(scenario) as stage, SpeedProbe() as probe:

        def play_real(policy: str, _: int) -> tuple[Played, float | None]:
            speeds: dict[float, float | None] = {}
            role, thinking = make_role(policy, settings)
            played = play_on(
                stage,
                scenario,
                settings,
                role,
                thinking,
                lambda now_s: speeds.update({now_s: probe.take()}),
            )
            return played, _mean_after(scenario.measure_from_s, speeds)

        yield play_real


def _untold(now_s: float) -> None:
    """Keep the time within a turn to oneself."""


def _mean_after(from_s: float, values: Mapping[float, float | None]) -> float | None:
    counted = [value for at_s, value in values.items() if at_s > from_s and value is not None]
    return fmean(counted) if counted else None


def _turn(
    scenario: Scenario, on: str, policy: str, number: int, played: Played, speed: float | None
) -> Turn:
    recording = played.recording.between(scenario.measure_from_s, None)
    seconds = float(recording.steps_s.sum())
    work = dict.fromkeys((guest.name for guest in scenario.guests), 0.0)
    by_vcpu = recording.steps_s @ recording.work / seconds
    for key, done in zip(recording.vcpus, by_vcpu, strict=True):
        work[recording.names[key.uuid]] += float(done)
    shares = [
        work[guest.name] / wanted
        for guest in scenario.guests
        if (wanted := _wanted(guest, recording.times_s, recording.steps_s))
    ]
    total, least = sum(work.values()), min(shares, default=0.0)
    pins = sum(len(tick.pins) for tick in played.recording.ticks)
    return Turn(scenario.name, on, policy, number, work, total, least, pins, speed)


def _wanted(guest: GuestTable, times_s: Floats, steps_s: Floats) -> float:
    """Return how many pCPUs a guest is meant to use, as a mean over these steps."""
    nominal = [nominal_demand(guest.load, at_s) for at_s in times_s]
    return guest.vcpus * float(steps_s @ np.array(nominal) / steps_s.sum())


def ratios(found: Sequence[Turn], policies: Sequence[str]) -> Iterator[Ratio]:
    """Yield the first contender against every other, in each scenario."""
    first, *others = policies
    by_turn = {(turn.scenario, turn.policy, turn.round): turn for turn in found}
    for scenario in dict.fromkeys(turn.scenario for turn in found):
        for other in others:
            pairs = [
                (mine, by_turn[scenario, other, number])
                for (where, policy, number), mine in by_turn.items()
                if (where, policy) == (scenario, first) and (scenario, other, number) in by_turn
            ]
            total = [_ratio(mine.total, theirs.total) for mine, theirs in pairs]
            least = [_ratio(mine.least, theirs.least) for mine, theirs in pairs]
            speed = [_ratio(mine.machine_speed, theirs.machine_speed) for mine, theirs in pairs]
            yield Ratio(
                scenario,
                first,
                other,
                len(pairs),
                summarize(total),
                summarize(least),
                adjusted(total, speed),
                adjusted(least, speed),
            )


def _ratio(mine: float | None, theirs: float | None) -> float | None:
    return mine / theirs if mine is not None and theirs else None


def turn_line(turn: Turn) -> str:
    """Return one line about a turn."""
    guests = "  ".join(f"{name} {done:.3f}" for name, done in turn.work.items())
    what = f"{turn.scenario}  {turn.policy}  round {turn.round}"
    speed = "" if turn.machine_speed is None else f"  machine's speed {turn.machine_speed:.1f}"
    return f"{what}  pins {turn.pins}  sum {turn.total:.3f}  {guests}{speed}"


def turn_json(turn: Turn) -> dict[str, Any]:
    """Return the object ``--json`` prints."""
    return asdict(turn)


def ratio_table(found: Sequence[Ratio]) -> list[str]:
    """Return ratios as text."""
    rows = [
        (
            one.scenario,
            f"{one.policy} / {one.against}",
            _interval(one.total),
            _interval(one.least),
            _interval(one.total_at_equal_speed),
            _interval(one.least_at_equal_speed),
            f"{one.rounds}",
        )
        for one in found
    ]
    return table(_HEADINGS, rows)


def _interval(summary: Summary | None) -> str:
    if summary is None:
        return "-"
    return f"{summary.median:.3f} [{summary.low:.3f}, {summary.high:.3f}]"
