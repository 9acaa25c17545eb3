"""Every vCPU on a pCPU of its own choosing, loads even, and as few changes as that takes.

What is balanced is entitlement: demand, but on an overloaded host no more than a fair share of it
(see ``fairness``), so that a hog among many counts as what it can get anywhere.

Two steps. **Homes**: busy vCPUs that may run on several pCPUs get one each, the heaviest first,
where they strain the host least. **Evening**: of the most strained pCPU that has one, the move or
swap that relieves the host most; again, until none is worth it.

What a load costs is told in ``strain``, what distance costs in ``nearness``. Changes are tried on
recorded samples (``replay``, ``board``) and accepted by the statistics of their gains
(``trigger``): nothing moves on noise, on an idle host, or where nothing would improve.

Example: web1 to web4 want 0.46 each and all live on pCPU 0 of two: loads 1.84 and 0.00. A move
leads to 1.38 and 0.46, another to 0.92 and 0.92, a third would only strain the host: done after
two. With three, 1.38 and 0.00, one move leads to 0.92 and 0.46; one more would only rename the
pCPUs, so an uneven number comes to rest as well. For the same reason a vCPU alone on its pCPU is
not moved to an empty one.

Where demand exceeds what can be given and does not divide, vCPUs take turns: see ``rotation``.
"""

from dataclasses import dataclass

import numpy as np

from virtbalance.cpu.board import NOBODY, Board, Partners
from virtbalance.cpu.granularity import crowded, domains_of, fold, nodes_of, unfold, widened
from virtbalance.cpu.replay import Record, recorded
from virtbalance.cpu.rotation import Deficits, Turn, accrue, turns
from virtbalance.cpu.strain import Array
from virtbalance.cpu.trigger import LEAST_SAMPLES, halves, lower_bound
from virtbalance.model.cpu_estimate import CpuEstimate, VcpuEstimate
from virtbalance.model.plan import CpuPlan, Figure, Pin, Reason

SOURCES = 8
"""Most strained pCPUs looked at; cpu.md, section 9, as the two below."""
RECEIVERS = 24
PARTNERS = 8
"""Least loaded pCPUs tried for a move, and for a swap."""
TESTED = 4
"""Most promising changes of a pCPU that are tested: the more are tested, the more pass by luck."""
HORIZON_S = (10.0, 300.0)
"""A gain is taken to last as long as the demands have lasted, within these; cpu.md, section 8."""


@dataclass(frozen=True, slots=True)
class Change:
    """One move or swap, with places on the board."""

    moved: int
    back: int
    """Comes in exchange; ``NOBODY``: a plain move."""
    source: int
    target: int


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
        """A gain must exceed what it costs by this many standard errors."""
        least_gain_ratio: float = 0.001
        """And this much of a pCPU for each pin: it keeps an idle host still, where the tiniest
        gain would pay for itself in five minutes."""
        idle_ratio: float = 0.03
        """Below this a vCPU gets no home: idle guests show 0 to 3 % and are not worth a pin."""
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
        self, state: Deficits | None, estimate: CpuEstimate, config: Config, now_s: float
    ) -> tuple[CpuPlan, Deficits | None]:
        """Return the pins that even the load, or the rotation's next turns."""
        if config.pin != "cpu":
            automatic = config.pin == "auto"
            domains = nodes_of(estimate) if automatic else domains_of(estimate)
            folded = fold(estimate, domains)
            search = _Search(folded, recorded(folded), config, only_with_memory=automatic)
            pins = tuple(unfold(search.pins(), estimate, domains))
            moved = {pin.vcpu for pin in pins}
            narrow = crowded(estimate) if automatic else estimate.vcpus
            # inside a domain the kernel takes turns by itself
            return CpuPlan(
                pins + tuple(widened((v for v in narrow if v.key not in moved), domains))
            ), None
        record = recorded(estimate)
        search = _Search(estimate, record, config)
        deficits = accrue(state, estimate, record.entitled, now_s, 2 * config.rotation_s)
        pins = search.pins() or search.turns(deficits)
        return CpuPlan(pins, tuple(search.considered.values())), deficits


class _Search:
    """The placement after all that is worth doing, and why."""

    def __init__(
        self,
        estimate: CpuEstimate,
        record: Record,
        config: Balance.Config,
        *,
        only_with_memory: bool = False,
    ) -> None:
        """``only_with_memory``: nobody gets a home but whose memory is known to lie somewhere."""
        self.estimate = estimate
        self.config = config
        self.only_with_memory = only_with_memory
        self.entitled = record.entitled
        samples = record.readings[0].shape[-1]
        # one more row each, for NOBODY: it limits nothing
        self.lengths = np.array([*record.lengths, samples])
        self.steady_s = np.array([vcpu.steady_s for vcpu in estimate.vcpus] + [np.inf])
        self.searched = np.array([halves(length)[0].stop for length in range(samples + 1)])
        self.board = Board(estimate, record.readings)
        self.reasons: dict[int, Reason] = {}
        self.considered: dict[int, Pin] = {}
        if len(self.board.cpus) < 2:
            return
        for vcpu in self._homeless():
            self._settle(vcpu)
        # each change lowers the mean strain of the host, so this ends; the count is a safety net
        for _ in range(4 * len(estimate.vcpus)):
            self.considered.clear()
            change = self._best()
            if change is None:
                break
            self._make(change)

    def pins(self) -> tuple[Pin, ...]:
        """Return what differs from the present placement, in the order it was found."""
        found = []
        for place, reason in self.reasons.items():
            vcpu, home = self.estimate.vcpus[place], self.board.homes[place]
            if home is not None and self.board.cpus[home] != vcpu.home:
                found.append(Pin(vcpu.key, frozenset({self.board.cpus[home]}), reason))
        return tuple(found)

    def turns(self, deficits: Deficits) -> tuple[Pin, ...]:
        """Return the pins with which the rotation goes on, where it is due."""
        relative = dict(zip(self.board.cpus, self.board.relative().tolist(), strict=True))
        due = turns(deficits, self.estimate, self.entitled, relative, self.config.rotation_s)
        return tuple(_turn(turn, deficits) for turn in due)

    def _homeless(self) -> list[int]:
        """Return the vCPUs that get a home now, heaviest first."""
        mean = self.board.mean
        busy = [
            place
            for place, vcpu in enumerate(self.estimate.vcpus)
            if vcpu.fixed is None and vcpu.home is None and mean[place] > self.config.idle_ratio
            if vcpu.memory_node is not None or not self.only_with_memory
        ]
        vcpus = self.estimate.vcpus
        together = all(vcpus[place].settled for place in busy)
        return sorted(
            (
                place
                for place in busy
                if vcpus[place].settled
                and (together or vcpus[place].steady_s > self.config.patience_s)
            ),
            key=lambda place: (-mean[place], place),
        )

    def _settle(self, place: int) -> None:
        rise = self.board.arrivals(place).round(9)
        if not np.isfinite(rise).any():
            return
        target = int(rise.argmin())
        before = self.board.relative()[target]
        self.board.settle(place, target)
        vcpu = self.estimate.vcpus[place]
        figures: dict[str, Figure] = {
            "vcpu": _name(vcpu),
            "target": self.board.cpus[target],
            "demand": float(self.board.mean[place]),
            "before": float(before),
            "after": float(self.board.relative()[target]),
        }
        text = "it has no pCPU of its own; pCPU {target} is least loaded, {before:.2f}, "
        if vcpu.memory_node == self.estimate.topology.by_id[self.board.cpus[target]].node:
            figures["node"] = vcpu.memory_node
            text = "its memory lies on node {node}; pCPU {target} is loaded {before:.2f}, "
        self.reasons[place] = Reason("home", text + "with its {demand:.2f} {after:.2f}", figures)

    def _best(self) -> Change | None:
        """Return the best change of the most strained pCPU that has one, or ``None``."""
        strains = self.board.strains().round(9)
        coolest = np.argsort(self.board.relative().round(9), kind="stable")
        sources = np.argsort(-strains, kind="stable")[:SOURCES]
        for source in sources.tolist():
            change = self._best_from(source, coolest[coolest != source])
            if change is not None:
                return change
        return None

    def _best_from(self, source: int, coolest: Array) -> Change | None:
        movable = [vcpu for vcpu in self.board.movable(source) if self._known(vcpu)]
        if not movable:
            return None
        partners = self._partners(coolest)
        gains = self.board.gains(movable, source, partners)
        costs = self._costs(movable, source, partners)
        scores = (self._promised(gains, movable, partners) - costs).round(9)
        for place in np.argsort(-scores, axis=None, kind="stable")[:TESTED].tolist():
            row, column = divmod(place, len(partners.pcpus))
            if scores[row, column] <= 0:
                return None
            back = int(partners.back[column])
            length = self._length(movable[row], back)
            _, test = halves(length)
            newest = gains[:, row, column, gains.shape[-1] - length :][:, test]
            change = Change(movable[row], back, source, int(partners.pcpus[column]))
            sure = min(lower_bound(gain, self.config.errors) for gain in newest)
            if sure > costs[row, column]:
                return change
            self._consider(
                change, float(newest.mean(axis=-1).min()), sure, float(costs[row, column])
            )
        return None

    def _consider(self, change: Change, gain: float, sure: float, cost: float) -> None:
        """Take down the most promising change of a vCPU that is not sure enough."""
        vcpu, target = self.estimate.vcpus[change.moved], self.board.cpus[change.target]
        text = "in the last seconds it would have relieved the host by {gain:.3f} pCPUs, "
        text += "for sure by {sure:.3f}; {cost:.3f} are needed"
        figures: dict[str, Figure] = {"gain": gain, "sure": sure, "cost": cost}
        pin = Pin(vcpu.key, frozenset({target}), Reason("unsure", text, figures))
        self.considered.setdefault(change.moved, pin)

    def _partners(self, coolest: Array) -> Partners:
        receivers = coolest[:RECEIVERS].tolist()
        pairs = [(pcpu, NOBODY) for pcpu in receivers]
        for pcpu in receivers[:PARTNERS]:
            pairs += [(pcpu, vcpu) for vcpu in self.board.movable(pcpu) if self._known(vcpu)]
        pcpus, back = zip(*pairs, strict=True)
        return Partners(np.array(pcpus, dtype=np.intp), np.array(back, dtype=np.intp))

    def _costs(self, movable: list[int], source: int, partners: Partners) -> Array:
        """Return the gain that each exchange must exceed, in pCPUs."""
        once_s = {pcpu: self.board.cost_s(source, pcpu) for pcpu in set(partners.pcpus.tolist())}
        lasts_s = np.minimum(self.steady_s[movable][:, None], self.steady_s[partners.back])
        pins = 1 + (partners.back != NOBODY)
        cost_s = pins * np.array([once_s[pcpu] for pcpu in partners.pcpus.tolist()])
        costs: Array = np.maximum(
            cost_s / np.clip(lasts_s, *HORIZON_S), pins * self.config.least_gain_ratio
        )
        return costs

    def _promised(self, gains: Array, movable: list[int], partners: Partners) -> Array:
        """Return the mean gain over the samples kept for the search, under the worse reading."""
        samples = gains.shape[-1]
        sums = np.concatenate([np.zeros_like(gains[..., :1]), gains.cumsum(axis=-1)], axis=-1)
        known = np.minimum(self.lengths[movable][:, None], self.lengths[partners.back])
        first = samples - known
        searched = self.searched[known]
        ends = np.broadcast_to((first + searched)[None, ..., None], (*gains.shape[:-1], 1))
        begins = np.broadcast_to(first[None, ..., None], (*gains.shape[:-1], 1))
        total = np.take_along_axis(sums, ends, -1) - np.take_along_axis(sums, begins, -1)
        promised: Array = (total[..., 0] / searched).min(axis=0)
        return promised

    def _known(self, vcpu: int) -> bool:
        return bool(self.lengths[vcpu] >= LEAST_SAMPLES)

    def _length(self, moved: int, back: int) -> int:
        return int(min(self.lengths[moved], self.lengths[back]))

    def _make(self, change: Change) -> None:
        ends = [change.source, change.target]
        before = self.board.relative()[ends].tolist()
        self.board.exchange(change.moved, change.target, change.back)
        after = self.board.relative()[ends].tolist()
        self.reasons[change.moved] = self._reason(change, before, after)
        if change.back != NOBODY:
            reverse = Change(change.back, change.moved, change.target, change.source)
            self.reasons[change.back] = self._reason(reverse, before[::-1], after[::-1])

    def _reason(self, change: Change, before: list[float], after: list[float]) -> Reason:
        vcpus, mean = self.estimate.vcpus, self.board.mean
        figures: dict[str, Figure] = {
            "vcpu": _name(vcpus[change.moved]),
            "source": self.board.cpus[change.source],
            "target": self.board.cpus[change.target],
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
