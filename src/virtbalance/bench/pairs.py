"""Contenders in turn on the same guests: what these get done under one, as a ratio of the other.

A machine is not equally fast from one minute to the next, so what is compared has to run close
together. In every round each contender has one turn, in the opposite order of the round before;
real guests stay where they are between turns, simulated ones meet the same demands. Ratios are
taken inside a round, then the median over rounds with its bootstrap interval. What guests get done
before a turn's ``measure_from_s`` does not count.

Example: 4 guests that want 0.4 each are pinned to one of two pCPUs. Left alone they get 1.0 done
together, spread 1.6, so the ratio of sums is 1.6; the worst guest's is the ratio of the least that
any guest got of what it wanted, here 0.4 / 0.25 = 1.6 as well.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from virtbalance.bench.contenders import make_role
from virtbalance.bench.lab_look import nominal_demand
from virtbalance.bench.played import Played
from virtbalance.bench.runner import play, program_settings
from virtbalance.bench.schema import Scenario
from virtbalance.bench.statistics import Summary, summarize
from virtbalance.control.config import ConfigError
from virtbalance.model.guest import RoleName
from virtbalance.ui.text import table


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


@dataclass(frozen=True, slots=True)
class Ratio:
    """How the first contender compares with another over all rounds."""

    scenario: str
    policy: str
    against: str
    total: Summary
    least: Summary


def turns(scenario: Scenario, policies: Sequence[str], rounds: int, on: str) -> Iterator[Turn]:
    """Yield every turn when it is over. Raises ``ConfigError``, ``PolicyError``."""
    if scenario.role is not RoleName.CPU or scenario.trace is not None:
        raise ConfigError(f"{scenario.name}: pairs are of vCPU scenarios with guests of their own")
    with _host(scenario, on) as play_turn:
        for number in range(rounds):
            for policy in policies if number % 2 == 0 else reversed(policies):
                played = play_turn(policy, number)
                if played.first_failure is not None:
                    raise ConfigError(f"{policy}: {played.first_failure}")
                yield _turn(scenario, on, policy, number, played)


@contextlib.contextmanager
def _host(scenario: Scenario, on: str) -> Iterator[Callable[[str, int], Played]]:
    settings = program_settings(scenario)
    if on == "sim":
        yield lambda policy, seed: play(
            scenario, settings, *make_role(policy, settings), seed, _untold
        )
        return
    from virtbalance.bench.lab_run import play_on, staged

    with staged(scenario) as stage:
        yield lambda policy, _: play_on(
            stage, scenario, settings, *make_role(policy, settings), _untold
        )


def _untold(now_s: float) -> None:
    """Keep the time within a turn to oneself."""


def _turn(scenario: Scenario, on: str, policy: str, number: int, played: Played) -> Turn:
    recording = played.recording.between(scenario.measure_from_s, None)
    seconds = float(recording.steps_s.sum())
    work = dict.fromkeys((guest.name for guest in scenario.guests), 0.0)
    wanted = dict(work)
    by_vcpu = recording.steps_s @ recording.work / seconds
    for key, done in zip(recording.vcpus, by_vcpu, strict=True):
        work[recording.names[key.uuid]] += float(done)
    for guest in scenario.guests:
        wanted[guest.name] = guest.vcpus * sum(
            nominal_demand(guest.load, at_s) * step_s / seconds
            for at_s, step_s in zip(recording.times_s, recording.steps_s, strict=True)
        )
    least = min(work[name] / want for name, want in wanted.items() if want)
    return Turn(scenario.name, on, policy, number, work, sum(work.values()), least)


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
            total = summarize([mine.total / theirs.total for mine, theirs in pairs])
            least = summarize([mine.least / theirs.least for mine, theirs in pairs])
            if total is not None and least is not None:
                yield Ratio(scenario, first, other, total, least)


def turn_line(turn: Turn) -> str:
    """Return one line about a turn."""
    guests = "  ".join(f"{name} {done:.3f}" for name, done in turn.work.items())
    return f"{turn.scenario}  {turn.policy}  round {turn.round}  sum {turn.total:.3f}  {guests}"


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
            f"{one.total.count}",
        )
        for one in found
    ]
    return table(("scenario", "ratio", "sum", "worst guest", "pairs"), rows)


def _interval(summary: Summary) -> str:
    return f"{summary.median:.3f} [{summary.low:.3f}, {summary.high:.3f}]"
