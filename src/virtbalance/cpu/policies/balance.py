"""Every vCPU on a pCPU of its own choosing, loads even, and as few changes as that takes.

What is balanced is entitlement: demand, but on an overloaded host no more than a fair share of it
(see ``fairness``), so that a hog among many counts as what it can get anywhere.

Two steps. **Homes**: busy vCPUs that may run on several pCPUs get one each, the heaviest first,
where they strain the host least. **Evening**: of the most strained pCPU that has one, the move or
swap that relieves the host most; again, until none is worth it.

What a load costs is told in ``strain``, what distance costs in ``nearness``. Changes are tried on
recorded samples (``replay``, ``board``) and accepted by the statistics of their gains
(``search``): nothing moves on noise, on an idle host, or where nothing would improve.

Example: web1 to web4 want 0.46 each and all live on pCPU 0 of two: loads 1.84 and 0.00. A move
leads to 1.38 and 0.46, another to 0.92 and 0.92, a third would only strain the host: done after
two. With three, 1.38 and 0.00, one move leads to 0.92 and 0.46; one more would only rename the
pCPUs, so an uneven number comes to rest as well. For the same reason a vCPU alone on its pCPU is
not moved to an empty one.

Where demand exceeds what can be given and does not divide, vCPUs take turns: see ``rotation``.
Where promised gains don't come, more certainty is asked for: see ``backoff``.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from virtbalance.cpu.backoff import BackOff, expect, review
from virtbalance.cpu.board import NOBODY, Board
from virtbalance.cpu.granularity import (
    Domains,
    crowded,
    domains_of,
    fold,
    nodes_of,
    unfold,
    widened,
)
from virtbalance.cpu.promise import placed
from virtbalance.cpu.replay import Record, recorded
from virtbalance.cpu.rotation import Deficits, Turn, accrue, forgiven, turns
from virtbalance.cpu.search import LEAST_GAIN_RATIO, Change, Search, Trial
from virtbalance.model.cpu_estimate import CpuEstimate, VcpuEstimate
from virtbalance.model.plan import CpuPlan, Figure, Pin, Reason

REGATHERED = 4
"""Moves may draw a guest to another cache, and what was not worth it before is then. Each time is
another evening, so there is an end to it."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered from tick to tick."""

    deficits: Deficits | None = None
    """None where the kernel evens inside sets of pCPUs."""
    promises: BackOff = field(default_factory=BackOff)


class Balance:
    """Evens out entitlement over pCPUs, or over sets of them."""

    name = "balance"

    @dataclass(frozen=True, slots=True)
    class Config:
        """What counts as better."""

        pin: str = "auto"
        """``cpu``: one pCPU for each vCPU; ``domain``: the pCPUs under one last-level cache, at
        most eight (see ``granularity``); ``auto``: no pins but to keep guests on the NUMA node of
        their memory, and to free those that wait in a narrower mask: with recorded loads nothing
        serves guests better (docs/bench.md)."""
        errors: float = 2.0
        """A gain must exceed what it costs by this many standard errors, and by more where the
        most strained pCPU offers none."""
        least_gain_ratio: float = LEAST_GAIN_RATIO
        """And this much of a pCPU for each pin: it keeps an idle host still, where the tiniest
        gain would pay for itself in five minutes."""
        idle_ratio: float = 0.1
        """Below this a vCPU gets no home: it fits in wherever there is room, which no pin can do.
        What guests lack on PlanetLab 0.85 goes down with it, 11.5 % at 0.03, 7.2 % here, 4.6 % at
        0.2 (docs/bench.md); but who asks for a pCPU for each vCPU means those that fill a tenth."""
        patience_s: float = 15.0
        """vCPUs get their homes together once all busy ones are settled, and singly after having
        been settled for this long: some guest is always starting on a large host. Meanwhile the
        kernel serves an unpinned vCPU well."""
        rotation_s: float = 1.0
        """Where loads don't divide, somebody moves once what two vCPUs are owed differs by this
        much CPU time: every 2 s for three hogs on two pCPUs."""

        def __post_init__(self) -> None:
            if self.pin not in ("auto", "cpu", "domain"):
                raise ValueError(f"pin must be auto, cpu or domain, got {self.pin}")
            for name in ("least_gain_ratio", "idle_ratio"):
                if not 0 <= getattr(self, name) <= 1:
                    raise ValueError(f"{name} must be 0 to 1, got {getattr(self, name)}")
            for name in ("errors", "patience_s", "rotation_s"):
                if getattr(self, name) < 0:
                    raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")

    def decide(
        self, state: Memory | None, estimate: CpuEstimate, config: Config, now_s: float
    ) -> tuple[CpuPlan, Memory]:
        """Return the pins that even the load, or the rotation's next turns."""
        state = state or Memory()
        if config.pin != "cpu":
            return _among_domains(state, estimate, config, now_s)
        record = recorded(estimate)
        promises = review(state.promises, estimate, record.entitled, now_s)
        placement = _Placement(estimate, record, config, promises.factor(now_s))
        placement.improve()
        deficits = accrue(state.deficits, estimate, record.entitled, now_s, 2 * config.rotation_s)
        pins, considered = placement.pins(), placement.considered()
        if not pins:
            return CpuPlan(placement.turns(deficits), considered), Memory(deficits, promises)
        promises = expect(promises, estimate, record.entitled, pins, now_s)
        return CpuPlan(pins, considered), Memory(forgiven(deficits, estimate, pins), promises)


def _among_domains(
    state: Memory, estimate: CpuEstimate, config: Balance.Config, now_s: float
) -> tuple[CpuPlan, Memory]:
    """Return pins to sets of pCPUs; inside a set the kernel evens, and takes turns, by itself."""
    automatic = config.pin == "auto"
    domains = nodes_of(estimate) if automatic else domains_of(estimate)
    promises, moves = state.promises, tuple[Pin, ...]()
    if len(domains) > 1:
        folded = fold(estimate, domains)
        record = recorded(folded)
        promises = review(promises, estimate, record.entitled, now_s)
        caution = promises.factor(now_s)
        placement = _Placement(folded, record, config, caution, only_with_memory=automatic)
        placement.improve()
        moves = tuple(unfold(placement.pins(), estimate, domains))
        promises = expect(promises, estimate, record.entitled, moves, now_s)
    freed = _freed(placed(estimate, moves), domains, only_crowded=automatic)
    return CpuPlan((*moves, *freed)), Memory(promises=promises)


def _freed(estimate: CpuEstimate, domains: Domains, *, only_crowded: bool) -> Iterator[Pin]:
    """Yield the pins that free vCPUs from masks narrower than their domain."""
    # who comes to a mask may crowd those in it, and so on; masks only grow, so this ends
    while True:
        narrow = crowded(estimate) if only_crowded else estimate.vcpus
        freed = tuple(widened(narrow, domains))
        if not freed:
            return
        yield from freed
        estimate = placed(estimate, freed)


class _Placement:
    """Who is to live where, and why: the present placement until it is improved."""

    def __init__(
        self,
        estimate: CpuEstimate,
        record: Record,
        config: Balance.Config,
        caution: float,
        *,
        only_with_memory: bool = False,
    ) -> None:
        """``caution``: how many times surer than usual a gain must be.

        ``only_with_memory``: nobody gets a home but whose memory is known to lie somewhere.
        """
        self._estimate = estimate
        self._config = config
        self._caution = caution
        self._only_with_memory = only_with_memory
        self._record = record
        self._board = Board(estimate, record.readings)
        self._reasons: dict[int, Reason] = {}
        self._unsure: dict[int, Trial] = {}

    def improve(self) -> None:
        """Do all that is worth doing: homes, then evening."""
        if len(self._board.cpus) < 2:
            return
        for vcpu in self._homeless():
            self._settle(vcpu)
        for _ in range(REGATHERED):
            self._even()
            if not self._board.regather():
                return

    def pins(self) -> tuple[Pin, ...]:
        """Return what differs from the present placement, in the order it was found."""
        found = []
        for place, reason in self._reasons.items():
            vcpu, home = self._estimate.vcpus[place], self._board.homes[place]
            if home is not None and self._board.cpus[home] != vcpu.home:
                found.append(Pin(vcpu.key, frozenset({self._board.cpus[home]}), reason))
        return tuple(found)

    def considered(self) -> tuple[Pin, ...]:
        """Return the most promising change of each vCPU that was not sure enough at the end."""
        return tuple(
            Pin(
                self._estimate.vcpus[place].key,
                frozenset({self._board.cpus[trial.change.target]}),
                _unsure(trial, self._caution),
            )
            for place, trial in self._unsure.items()
        )

    def turns(self, deficits: Deficits) -> tuple[Pin, ...]:
        """Return the pins with which the rotation goes on, where it is due.

        pCPUs for which evening has something promising in sight are left to it.
        """
        hopeful = {
            self._board.cpus[trial.change.source]
            for trial in self._unsure.values()
            if trial.gain > trial.cost
        }
        relative = {
            pcpu: load
            for pcpu, load in zip(self._board.cpus, self._board.relative().tolist(), strict=True)
            if pcpu not in hopeful
        }
        due = turns(
            deficits, self._estimate, self._record.entitled, relative, self._config.rotation_s
        )
        return tuple(_turn(turn, deficits) for turn in due)

    # Homes

    def _homeless(self) -> list[int]:
        """Return the vCPUs that get a home now, heaviest first."""
        mean, vcpus = self._board.mean, self._estimate.vcpus
        busy = [
            place
            for place, vcpu in enumerate(vcpus)
            if vcpu.fixed is None and vcpu.home is None and mean[place] > self._config.idle_ratio
            if vcpu.memory_node is not None or not self._only_with_memory
        ]
        together = all(vcpus[place].settled for place in busy)
        return sorted(
            (
                place
                for place in busy
                if vcpus[place].settled
                and (together or vcpus[place].steady_s > self._config.patience_s)
            ),
            key=lambda place: (-mean[place], place),
        )

    def _settle(self, place: int) -> None:
        rise = self._board.arrivals(place).round(9)
        if not np.isfinite(rise).any():
            return
        target = int(rise.argmin())
        before = self._board.relative()[target]
        self._board.settle(place, target)
        vcpu = self._estimate.vcpus[place]
        figures: dict[str, Figure] = {
            "vcpu": _name(vcpu),
            "target": self._board.cpus[target],
            "demand": float(self._board.mean[place]),
            "before": float(before),
            "after": float(self._board.relative()[target]),
        }
        text = "it has no pCPU of its own; pCPU {target} is least loaded, {before:.2f}, "
        if vcpu.memory_node == self._estimate.topology.by_id[self._board.cpus[target]].node:
            figures["node"] = vcpu.memory_node
            text = "its memory lies on node {node}; pCPU {target} is loaded {before:.2f}, "
        self._reasons[place] = Reason("home", text + "with its {demand:.2f} {after:.2f}", figures)

    # Evening

    def _even(self) -> None:
        errors = self._caution * self._config.errors
        search = Search(self._board, self._record.lengths, errors, self._config.least_gain_ratio)
        # each change lowers the mean strain of the host, so this ends; the count is a safety net
        for _ in range(4 * len(self._estimate.vcpus)):
            self._unsure.clear()
            for trial in search.trials():
                if trial.passed:
                    self._make(trial.change)
                    break
                self._unsure.setdefault(trial.change.moved, trial)
            else:
                return

    def _make(self, change: Change) -> None:
        ends = [change.source, change.target]
        before = self._board.relative()[ends].tolist()
        self._board.exchange(change.moved, change.target, change.back)
        after = self._board.relative()[ends].tolist()
        self._reasons[change.moved] = self._reason(change, before, after)
        if change.back != NOBODY:
            reverse = Change(change.back, change.moved, change.target, change.source)
            self._reasons[change.back] = self._reason(reverse, before[::-1], after[::-1])

    def _reason(self, change: Change, before: list[float], after: list[float]) -> Reason:
        vcpus, mean = self._estimate.vcpus, self._board.mean
        figures: dict[str, Figure] = {
            "vcpu": _name(vcpus[change.moved]),
            "source": self._board.cpus[change.source],
            "target": self._board.cpus[change.target],
            "demand": float(mean[change.moved]),
            "source_before": before[0],
            "target_before": before[1],
            "source_after": after[0],
            "target_after": after[1],
        }
        loaded = "pCPU {source} is loaded {source_before:.2f}, pCPU {target} "
        evened = " evens them to {source_after:.2f}/{target_after:.2f}"
        if change.back == NOBODY:
            text = "{target_before:.2f}; moving {demand:.2f}"
            return Reason("move", loaded + text + evened, figures)
        exchange: dict[str, Figure] = {
            "other": _name(vcpus[change.back]),
            "other_demand": float(mean[change.back]),
        }
        text = "{target_before:.2f}; swapping its {demand:.2f} with {other_demand:.2f} of {other}"
        return Reason("swap", loaded + text + evened, figures | exchange)


def _unsure(trial: Trial, caution: float) -> Reason:
    text = "in the last seconds it would have relieved the host by {gain:.3f} pCPUs, "
    text += "for sure by {sure:.3f}; {cost:.3f} are needed"
    figures: dict[str, Figure] = {"gain": trial.gain, "sure": trial.sure, "cost": trial.cost}
    if caution > 1:
        text += " (little came of former gains: {caution:g} times the usual certainty is asked)"
        figures["caution"] = caution
    return Reason("unsure", text, figures)


def _turn(turn: Turn, deficits: Deficits) -> Pin:
    assert turn.favoured.home is not None
    text = (
        "loads do not divide; {owed} is owed {owed_s:.1f} s, {favoured} "
        "{favoured_s:.1f} s: leaving pCPU {source} to the one, sharing {target} with the other"
    )
    figures: dict[str, Figure] = {
        "vcpu": _name(turn.moved),
        "owed": _name(turn.owed),
        "owed_s": deficits.of(turn.owed),
        "favoured": _name(turn.favoured),
        "favoured_s": deficits.of(turn.favoured),
        "source": turn.moved.home,
        "target": turn.favoured.home,
    }
    return Pin(turn.moved.key, frozenset({turn.favoured.home}), Reason("turn", text, figures))


def _name(vcpu: VcpuEstimate) -> str:
    return f"{vcpu.guest_name}/{vcpu.key.vcpu}"
