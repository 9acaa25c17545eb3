"""Every vCPU on a pCPU of its own choosing, loads even, and as few changes as that takes.

What is balanced is entitlement: demand, but on an overloaded host no more than a fair share of it
(see ``fairness``), so that a hog among many counts as what it can get anywhere.

Two steps. **Homes**: busy vCPUs that may run on several pCPUs get one each, the heaviest first,
always on the pCPU that is least loaded with it. **Evening**: of the most loaded pCPU, the move or
swap that lowers the pair's higher load most; again, until nothing lowers it markedly.

Example: web1 to web4 want 0.46 each and all live on pCPU 0 of two: loads 1.84 and 0.00. A move
lowers the pair's higher load by 0.46 (1.38 and 0.46), another by 0.46 (0.92 and 0.92), a third
would raise it: done after two. With three, 1.38 and 0.00, one move leads to 0.92 and 0.46; one
more would only rename the pCPUs, so an uneven number comes to rest as well. For the same reason a
vCPU alone on its pCPU is never moved to an empty one.

*Markedly* is: more than a share of the mean load, more than the noise seen in the demands
concerned, and more than an idle guest ever uses. The last is the only absolute figure: a move of
a vCPU lowers the higher load by no more than its demand. On a pCPU that carries more than it can
give somebody goes short, and only the noise must be exceeded.

Where demand exceeds what can be given and does not divide, vCPUs take turns: see ``rotation``.

*Doubt*: guests show nearly a whole pCPU for seconds after launch, and whatever changed a moment
ago may change back. A vCPU whose demand is not settled is therefore weighed twice, once as
measured and once as the average of all unsettled ones, and a change must be good both times. Eight
launching guests on one of four pCPUs are spread at once, two on each; eight that are even already
stay, though some finish launching a second before others. Homes wait until demands are
settled: meanwhile the kernel serves an unpinned vCPU well.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from virtbalance.cpu.fairness import entitlement
from virtbalance.cpu.granularity import domains_of, fold, unfold
from virtbalance.cpu.history import mean, spread
from virtbalance.cpu.load import loads, shared_over
from virtbalance.cpu.rotation import Deficits, Turn, accrue, turns
from virtbalance.model.cpu_estimate import CpuEstimate, VcpuEstimate
from virtbalance.model.guest import VcpuKey
from virtbalance.model.plan import CpuPlan, Figure, Pin, Reason

SLOTS_A_SAMPLE = 2
"""Neighbouring remembered demands resemble each other: two count as one observation."""
RECEIVERS = 24
PARTNERS = 8
"""Least loaded pCPUs tried for a move, and for a swap; cpu.md, section 9: a decision stays cheap
on large hosts, and the best change is nearly always among these."""

Demands = Mapping[VcpuKey, float]


@dataclass(frozen=True, slots=True)
class Change:
    """One move or swap between two pCPUs, and by how much it lowers the higher of their loads."""

    moved: VcpuKey
    back: VcpuKey | None
    """Comes in exchange; ``None``: a plain move."""
    source: int
    target: int
    gain: float


class Balance:
    """Evens out entitlement over pCPUs, or over sets of them."""

    name = "balance"

    @dataclass(frozen=True, slots=True)
    class Config:
        """What counts as better."""

        pin: str = "cpu"
        """``cpu``: one pCPU for each vCPU; ``domain``: the pCPUs under one last-level cache, at
        most eight (see ``granularity``)."""
        tolerance_ratio: float = 0.05
        """A change must lower the higher load of two pCPUs by this share of the mean load."""
        noise_factor: float = 4.0
        """And by this many standard errors of the demands on both: of many possible changes the
        best is chosen, so two would be passed by chance."""
        overload_ratio: float = 0.02
        """Where a pCPU carries more than it can give, this is enough instead of the two others:
        somebody goes short there."""
        idle_ratio: float = 0.03
        """And by this many pCPUs: idle guests show 0 to 3 % and are not worth a pin."""
        patience_s: float = 15.0
        """vCPUs get their homes together once all busy ones are settled, and singly after having
        been settled for this long: some guest is always starting on a large host."""

        rotation_s: float = 1.0
        """Where loads don't divide, somebody moves once what two vCPUs are owed differs by this
        much CPU time: every 2 s for three hogs on two pCPUs."""

        def __post_init__(self) -> None:
            if self.pin not in ("cpu", "domain"):
                raise ValueError(f"pin must be cpu or domain, got {self.pin}")
            for name in ("tolerance_ratio", "idle_ratio", "overload_ratio"):
                if not 0 <= getattr(self, name) <= 1:
                    raise ValueError(f"{name} must be 0 to 1, got {getattr(self, name)}")
            for name in ("noise_factor", "patience_s", "rotation_s"):
                if getattr(self, name) < 0:
                    raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")

    def decide(
        self, state: Deficits | None, estimate: CpuEstimate, config: Config, now_s: float
    ) -> tuple[CpuPlan, Deficits | None]:
        """Return the pins that even the load, largest gain first, or the rotation's next turns."""
        if config.pin == "domain":
            domains = domains_of(estimate)
            pins = _evened(fold(estimate, domains), config).pins()
            # inside a domain the kernel takes turns by itself
            return CpuPlan(tuple(unfold(pins, estimate, domains))), None
        board = _evened(estimate, config)
        deficits = accrue(state, estimate, board.readings[0], now_s, 2 * config.rotation_s)
        return CpuPlan(board.pins() or board.turns(deficits)), deficits


def _evened(estimate: CpuEstimate, config: Balance.Config) -> "_Board":
    """Return the placement after all that is worth doing."""
    board = _Board(estimate, config)
    if len(estimate.capacity) < 2:
        return board
    for vcpu in _homeless(estimate, config):
        board.settle(vcpu)
    # each change strictly lowers the sorted loads, so this ends; the count is a safety net
    for _ in range(4 * len(estimate.vcpus)):
        change = board.best()
        if change is None:
            break
        board.make(change)
    return board


def _homeless(estimate: CpuEstimate, config: Balance.Config) -> list[VcpuEstimate]:
    """Return the vCPUs that get a home now, heaviest first."""
    busy = [
        vcpu
        for vcpu in estimate.vcpus
        if vcpu.fixed is None and vcpu.home is None and _believed(vcpu) > config.idle_ratio
    ]
    together = all(vcpu.settled for vcpu in busy)
    ready = [v for v in busy if v.settled and (together or v.steady_s > config.patience_s)]
    return sorted(ready, key=lambda vcpu: (-_believed(vcpu), vcpu.key))


def _believed(vcpu: VcpuEstimate) -> float:
    """Return its demand: the mean since it last changed where that has lasted."""
    return mean(vcpu.history) if vcpu.settled and vcpu.history else vcpu.demand_ratio


class _Board:
    """The placement while it is being worked on, with loads under both readings of the demands."""

    def __init__(self, estimate: CpuEstimate, config: Balance.Config) -> None:
        self.estimate = estimate
        self.config = config
        self.vcpus = {vcpu.key: vcpu for vcpu in estimate.vcpus}
        self.readings = _readings(estimate)
        self.loads = [loads(estimate, demand) for demand in self.readings]
        self.variance = {v.key: _variance(v, self.readings[0][v.key]) for v in estimate.vcpus}
        self.homes = {v.key: v.home for v in estimate.vcpus if v.home in estimate.capacity}
        self.residents: dict[int, set[VcpuKey]] = defaultdict(set)
        for key, home in self.homes.items():
            if home is not None:
                self.residents[home].add(key)
        self.uncertain = {
            cpu: sum(self.variance[key] for key in self.residents[cpu]) for cpu in self.loads[0]
        }
        self.threads: dict[int, list[int]] = defaultdict(list)
        for cpu in self.loads[0]:
            self.threads[estimate.topology.by_id[cpu].core].append(cpu)
        self.reasons: dict[VcpuKey, Reason] = {}
        room = sum(estimate.capacity.values()) or 1.0
        mean_load = sum(self.readings[0].values()) / room
        self.least = max(config.tolerance_ratio * mean_load, config.idle_ratio)

    def settle(self, vcpu: VcpuEstimate) -> None:
        """Give a vCPU the home that is least loaded with it in."""
        capacity = self.estimate.capacity
        shares = shared_over(vcpu, self.estimate)
        for total, demand in zip(self.loads, self.readings, strict=True):
            for cpu, share in shares.items():
                total[cpu] -= demand[vcpu.key] * share
        target = min(
            sorted(vcpu.allowed & capacity.keys()),
            key=lambda cpu: (
                round((self.loads[0][cpu] + self.readings[0][vcpu.key]) / capacity[cpu], 9),
                self._core_load(cpu),
                cpu,
            ),
        )
        before = self.loads[0][target]
        self._put(vcpu.key, target)
        self.reasons[vcpu.key] = Reason(
            "home",
            "it has no pCPU of its own; pCPU {target} is least loaded, {before:.2f}, "
            "with its {demand:.2f} {after:.2f}",
            {
                "vcpu": _name(vcpu),
                "target": target,
                "demand": self.readings[0][vcpu.key],
                "before": before,
                "after": self.loads[0][target],
            },
        )

    def best(self) -> Change | None:
        """Return the best change of the most loaded pCPU that has one, or ``None``."""
        by_load = sorted(self.loads[0], key=lambda cpu: (self._relative(0, cpu), cpu))
        lowest = self._relative(0, by_load[0])
        for source in by_load[:0:-1]:
            if self._relative(0, source) - lowest <= self._least(source):
                continue
            changes = [
                change
                for rank, target in enumerate(by_load[:RECEIVERS])
                if target != source
                for change in self._changes(source, target, swaps=rank < PARTNERS)
            ]
            if changes:
                return min(changes, key=self._preference)
        return None

    def make(self, change: Change) -> None:
        """Carry a change out on the board and note why."""
        before = [self._relative(0, cpu) for cpu in (change.source, change.target)]
        self._take(change.moved, change.source)
        if change.back is not None:
            self._take(change.back, change.target)
            self._put(change.back, change.source)
        self._put(change.moved, change.target)
        after = [self._relative(0, cpu) for cpu in (change.source, change.target)]
        for key in filter(None, (change.moved, change.back)):
            self.reasons[key] = self._reason(change, key, before, after)

    def pins(self) -> tuple[Pin, ...]:
        """Return what differs from the present placement, in the order it was found."""
        return tuple(
            Pin(key, frozenset({home}), reason)
            for key, reason in self.reasons.items()
            if (home := self.homes[key]) is not None and home != self.vcpus[key].home
        )

    def turns(self, deficits: Deficits) -> tuple[Pin, ...]:
        """Return the pins with which the rotation goes on, where it is due."""
        relative = {cpu: self._relative(0, cpu) for cpu in self.loads[0]}
        due = turns(deficits, self.estimate, self.readings[0], relative, self.config.rotation_s)
        return tuple(_turn(turn, deficits) for turn in due)

    def _changes(self, source: int, target: int, *, swaps: bool) -> Iterator[Change]:
        """Yield the changes between two pCPUs that are markedly better."""
        least, measured = self._least(source), self.readings[0]
        moves: list[VcpuKey | None] = [None] if len(self.residents[source]) > 1 else []
        partners = moves + (self._movable(target, source) if swaps else [])
        # what is shifted must lower the source by the least gain, and leave it to the target
        lowest = least * self.estimate.capacity[source]
        gap = self._relative(0, source) - self._relative(0, target)
        highest = (gap - least - self._unsure(source, target)) * self.estimate.capacity[target]
        if highest <= lowest:
            return
        movable = self._movable(source, target)
        for back in partners:
            # a swap is two pins: it must be worth both, or a move is preferred
            second_pin = 0.0 if back is None else least
            returned = 0.0 if back is None else measured[back]
            for moved in movable:
                if lowest < measured[moved] - returned < highest:
                    gain = self._gain(source, target, moved, back) - second_pin
                    if gain > least:
                        yield Change(moved, back, source, target, gain)

    def _least(self, source: int) -> float:
        """Return the gain that a change must exceed."""
        overloaded = self._relative(0, source) > 1
        return self.config.overload_ratio if overloaded else self.least

    def _movable(self, source: int, target: int) -> list[VcpuKey]:
        return sorted(
            key
            for key in self.residents[source]
            if self.vcpus[key].fixed is None and target in self.vcpus[key].allowed
        )

    def _gain(self, source: int, target: int, moved: VcpuKey, back: VcpuKey | None) -> float:
        """Return by how much the higher load surely falls, under the less favourable reading.

        The source falls by what is shifted, known to within the noise of the shifted demands; the
        target ends below the source's former load, known to within the noise of all on both.
        """
        room_source, room_target = self.estimate.capacity[source], self.estimate.capacity[target]
        variance = self.variance[moved] + (self.variance[back] if back else 0.0)
        unsure_source = self.config.noise_factor * variance**0.5 / room_source
        unsure_target = self._unsure(source, target)
        gains: list[float] = []
        for total, demand in zip(self.loads, self.readings, strict=True):
            shift = demand[moved] - (demand[back] if back is not None else 0.0)
            before = max(total[source] / room_source, total[target] / room_target)
            gains.append(before - (total[source] - shift) / room_source - unsure_source)
            gains.append(before - (total[target] + shift) / room_target - unsure_target)
        return min(gains)

    def _unsure(self, source: int, target: int) -> float:
        """Return the noise of all demands on two pCPUs, as relative load."""
        noise = math.sqrt(max(0.0, self.uncertain[source] + self.uncertain[target]))
        smaller = min(self.estimate.capacity[source], self.estimate.capacity[target])
        return self.config.noise_factor * noise / smaller

    def _preference(self, change: Change) -> tuple[float, float, float, int, VcpuKey, VcpuKey]:
        """Return the tie-break order: gain, target's load, its core's load, number, names."""
        return (
            -round(change.gain, 9),
            round(self._relative(0, change.target), 9),
            self._core_load(change.target),
            change.target,
            change.moved,
            change.back or change.moved,
        )

    def _reason(
        self, change: Change, key: VcpuKey, before: list[float], after: list[float]
    ) -> Reason:
        source, target = change.source, change.target
        if key == change.back:
            source, target, before, after = target, source, before[::-1], after[::-1]
        other = change.moved if key == change.back else change.back
        figures: dict[str, Figure] = {
            "vcpu": _name(self.vcpus[key]),
            "source": source,
            "target": target,
            "demand": self.readings[0][key],
            "source_before": before[0],
            "target_before": before[1],
            "source_after": after[0],
            "target_after": after[1],
        }
        loaded = "pCPU {source} is loaded {source_before:.2f}, pCPU {target} "
        evened = " evens them to {source_after:.2f}/{target_after:.2f}"
        if other is None:
            text = "{target_before:.2f}; moving {demand:.2f}"
            return Reason("move", loaded + text + evened, figures)
        exchange: dict[str, Figure] = {
            "other": _name(self.vcpus[other]),
            "other_demand": self.readings[0][other],
        }
        text = "{target_before:.2f}; swapping its {demand:.2f} with {other_demand:.2f} of {other}"
        return Reason("swap", loaded + text + evened, figures | exchange)

    def _relative(self, reading: int, cpu: int) -> float:
        return self.loads[reading][cpu] / self.estimate.capacity[cpu]

    def _core_load(self, cpu: int) -> float:
        """Return the load of all threads of its core: of two empty ones, the emptier core."""
        core = self.estimate.topology.by_id[cpu].core
        return round(sum(self.loads[0][thread] for thread in self.threads[core]), 9)

    def _take(self, key: VcpuKey, cpu: int) -> None:
        self.residents[cpu].remove(key)
        self.uncertain[cpu] -= self.variance[key]
        for total, demand in zip(self.loads, self.readings, strict=True):
            total[cpu] -= demand[key]

    def _put(self, key: VcpuKey, cpu: int) -> None:
        self.homes[key] = cpu
        self.residents[cpu].add(key)
        self.uncertain[cpu] += self.variance[key]
        for total, demand in zip(self.loads, self.readings, strict=True):
            total[cpu] += demand[key]


def _readings(estimate: CpuEstimate) -> list[Demands]:
    """Return the entitlements by demand as measured and, where some are in doubt, made equal."""
    measured = {vcpu.key: _believed(vcpu) for vcpu in estimate.vcpus}
    doubted = [vcpu.key for vcpu in estimate.vcpus if not vcpu.settled]
    if not doubted:
        return [entitlement(estimate, measured)]
    average = mean([measured[key] for key in doubted])
    doubtful = measured | dict.fromkeys(doubted, average)
    return [entitlement(estimate, measured), entitlement(estimate, doubtful)]


def _variance(vcpu: VcpuEstimate, entitled: float) -> float:
    """Return the squared standard error of its entitlement: as uncertain as its demand."""
    seen = vcpu.history or (vcpu.demand_ratio,)
    part = min(1.0, entitled / _believed(vcpu)) if _believed(vcpu) else 1.0
    return (part * spread(seen)) ** 2 / max(1.0, len(seen) / SLOTS_A_SAMPLE)


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
