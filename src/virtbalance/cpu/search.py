"""Which change of a placement is worth making: a move, or a swap of two vCPUs.

One question at a time: of the placement as it stands, which single change relieves the host most?
Every movable vCPU of a strained pCPU is tried on the least loaded others, alone and in exchange
for each vCPU that lives on the very least loaded. What a change gains, sample by sample, is told
in ``board``; the older half of the samples chooses what to *try*, the newer half, which had no say
in that, is the test (see ``trigger``). A change passes whose gain is surely above its *cost*: what
the moves cost once, spread over the time the demands may last (cpu.md, sections 8 and 9), and
never less than a floor that keeps an idle host still. Two vCPUs that want alike don't change places
for the sake of evenness: which of them wants more is not known that well.

Example: web1 to web4 want 0.46 each, all on pCPU 0 of two. Moving one of them relieves the host by
0.59 pCPUs at every sample, so surely; a move costs 4 ms and the demands have lasted 20 s, which
is 0.0002 pCPUs: the floor of 0.003 counts, and web1 passes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from virtbalance.cpu.board import NOBODY, Board, Numbers, Partners
from virtbalance.cpu.strain import Array
from virtbalance.cpu.trigger import LEAST_SAMPLES, halves, lower_bound

SOURCES = 8
"""Most strained pCPUs looked at; cpu.md, section 9, as the two below."""
RECEIVERS = 24
PARTNERS = 8
"""Least loaded pCPUs tried for a move, and for a swap."""
TESTED = 4
"""Most promising changes of a pCPU that are tested: the more are tested, the more pass by luck.
Those of the next pCPU must therefore be surer."""
HORIZON_S = (10.0, 300.0)
"""A gain is taken to last as long as the demands have lasted, within these; cpu.md, section 8."""
LEAST_GAIN_RATIO = 0.003
"""pCPUs for each pin: the floor of a gain, unless the policy is told otherwise. With a third of it
PlanetLab's 0.85 is served alike with a tenth more pins."""

ALIKE_RATIO = 0.25
"""Demands that differ by less count as the same: what a vCPU seems to want depends on its company.
Where most of the emulators' threads were (0.22 of a pCPU, 0.10 on the other) real guests read up to
0.48 and elsewhere 0.38 with the same program, and those that came in their place read the same.
Recorded loads are served as well as with any swap (docs/bench.md)."""


@dataclass(frozen=True, slots=True)
class Change:
    """One move or swap, with places on the board."""

    moved: int
    back: int
    """Comes in exchange; ``NOBODY``: a plain move."""
    source: int
    target: int


@dataclass(frozen=True, slots=True)
class Trial:
    """What a change would have been worth in the last seconds, in pCPUs."""

    change: Change
    gain: float
    """Mean, under the worse reading."""
    sure: float
    """What the gain is at least, as far as so many samples can tell."""
    cost: float
    """What it must exceed."""

    @property
    def passed(self) -> bool:
        """Whether the change is worth making."""
        return self.sure > self.cost


def least_gain(cost_s: ArrayLike, lasts_s: ArrayLike, floor: ArrayLike) -> Array:
    """Return the gain, in pCPUs, that repays what changes cost once while the demands last."""
    gain: Array = np.maximum(np.divide(cost_s, np.clip(lasts_s, *HORIZON_S)), floor)
    return gain


def _errors(errors: float, asked: int) -> float:
    """Return how many standard errors keep luck as rare in so many tests as in one (Bonferroni)."""
    normal = NormalDist()
    return -normal.inv_cdf(normal.cdf(-errors) / asked)


class Search:
    """Tries changes on a board, which may change between two questions."""

    def __init__(
        self, board: Board, lengths: Sequence[int], errors: float, least_gain_ratio: float
    ) -> None:
        """``lengths``: how many of its newest samples each vCPU really has.

        ``errors`` and ``least_gain_ratio``: as of ``Balance.Config``.
        """
        self._board = board
        self._errors = errors
        self._least_gain_ratio = least_gain_ratio
        samples = board.entitled.shape[-1]
        # one more row each, for NOBODY: it limits nothing
        self._lengths = np.array([*lengths, samples])
        self._steady_s = np.array([vcpu.steady_s for vcpu in board.estimate.vcpus] + [np.inf])
        self._searched = np.array([halves(length)[0].stop for length in range(samples + 1)])

    def trials(self) -> Iterator[Trial]:
        """Yield what was tested, until something passes: that is the change to make.

        The most strained pCPU comes first, and of each the most promising change.
        """
        strains = self._board.strains().round(9)
        coolest = np.argsort(self._board.relative().round(9), kind="stable")
        sources = np.argsort(-strains, kind="stable")[:SOURCES]
        failed = 0
        for source in sources.tolist():
            errors = _errors(self._errors, failed + 1)
            for trial in self._trials_from(source, coolest[coolest != source], errors):
                yield trial
                failed += 1
                if trial.passed:
                    return

    def _trials_from(self, source: int, coolest: Array, errors: float) -> Iterator[Trial]:
        movable = self._movable(source)
        if not movable:
            return
        partners = self._partners(coolest)
        gains = self._board.gains(movable, source, partners, self._alike(movable, partners.back))
        costs = self._costs(movable, source, partners)
        scores = (self._promised(gains, movable, partners) - costs).round(9)
        for place in np.argsort(-scores, axis=None, kind="stable")[:TESTED].tolist():
            row, column = divmod(place, len(partners.pcpus))
            if scores[row, column] <= 0:
                return
            back = int(partners.back[column])
            length = int(min(self._lengths[movable[row]], self._lengths[back]))
            _, test = halves(length)
            newest = gains[:, row, column, gains.shape[-1] - length :][:, test]
            yield Trial(
                Change(movable[row], back, source, int(partners.pcpus[column])),
                gain=float(newest.mean(axis=-1).min()),
                sure=min(lower_bound(gain, errors) for gain in newest),
                cost=float(costs[row, column]),
            )

    def _movable(self, pcpu: int) -> list[int]:
        """Return those who may leave a pCPU and are known for long enough to be tested."""
        vcpus = self._board.movable(pcpu)
        return [vcpu for vcpu in vcpus if self._lengths[vcpu] >= LEAST_SAMPLES]

    def _partners(self, coolest: Array) -> Partners:
        receivers = coolest[:RECEIVERS].tolist()
        pairs = [(pcpu, NOBODY) for pcpu in receivers]
        for pcpu in receivers[:PARTNERS]:
            pairs += [(pcpu, vcpu) for vcpu in self._movable(pcpu)]
        pcpus, back = zip(*pairs, strict=True)
        return Partners(np.array(pcpus, dtype=np.intp), np.array(back, dtype=np.intp))

    def _alike(self, movable: list[int], back: Numbers) -> NDArray[np.bool_]:
        """Return of which pairs it can't be told who wants more."""
        ours, theirs = self._board.mean[movable][:, None], self._board.mean[back]
        alike: NDArray[np.bool_] = abs(ours - theirs) < ALIKE_RATIO * np.maximum(ours, theirs)
        alike &= back != NOBODY
        return alike

    def _costs(self, movable: list[int], source: int, partners: Partners) -> Array:
        """Return the gain that each exchange must exceed, in pCPUs."""
        once_s = {pcpu: self._board.cost_s(source, pcpu) for pcpu in set(partners.pcpus.tolist())}
        lasts_s = np.minimum(self._steady_s[movable][:, None], self._steady_s[partners.back])
        pins = 1 + (partners.back != NOBODY)
        cost_s = pins * np.array([once_s[pcpu] for pcpu in partners.pcpus.tolist()])
        return least_gain(cost_s, lasts_s, pins * self._least_gain_ratio)

    def _promised(self, gains: Array, movable: list[int], partners: Partners) -> Array:
        """Return the mean gain over the samples kept for the search, under the worse reading."""
        samples = gains.shape[-1]
        sums = np.concatenate([np.zeros_like(gains[..., :1]), gains.cumsum(axis=-1)], axis=-1)
        known = np.minimum(self._lengths[movable][:, None], self._lengths[partners.back])
        first = samples - known
        searched = self._searched[known]
        ends = np.broadcast_to((first + searched)[None, ..., None], (*gains.shape[:-1], 1))
        begins = np.broadcast_to(first[None, ..., None], (*gains.shape[:-1], 1))
        total = np.take_along_axis(sums, ends, -1) - np.take_along_axis(sums, begins, -1)
        promised: Array = (total[..., 0] / searched).min(axis=0)
        return promised
