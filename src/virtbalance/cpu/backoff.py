"""When promised gains don't come: be surer before moving anybody again.

A plan promises an end to some shortfall on the pCPUs it touches (see ``promise``). What those who
are to live there are owed and do not get is measured when the plan is made, and again from 2 to
8 s after it: the difference is what has come of it. (The shortfall from before is measured as well,
not worked out: loops on one pCPU always wait a little for each other, which no plan can end.)

One plan may be unlucky. What was promised and what came are added up, the last four plans or so
counting most; if from two plans or more less than a quarter came, twice as many standard errors are
asked for during 10 minutes (cpu.md, section 11, where each plan is judged for itself). So two
placements of which each looks better from the other are not taken in turn for ever.

Not judged are plans that promise less than 0.05 pCPUs, that were not carried out as asked, or after
which something else is wanted: those say nothing about the way gains are foretold. A plan for the
same pCPUs ends the wait: what has been seen until then must do.

Example: pCPU 0 carries 1.30, pCPU 1 0.50, and 0.35 is missing on both; a move of 0.40 promises
0.30. Six seconds later 0.33 is missing: 0.02 came. A second plan of this kind, and it is enough.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from virtbalance.cpu.promise import placed, promise
from virtbalance.model.cpu_estimate import CpuEstimate
from virtbalance.model.guest import VcpuKey
from virtbalance.model.plan import Pin

SEEN_FROM_S = 2.0
"""Nor earlier than the counters' window lies behind the plan."""
SEEN_TO_S = 8.0
LEAST_PCPUS = 0.05
KEPT_RATIO = 0.25
"""What must have come of all promises."""
LUCK = (-1.0, 2.0)
"""What came of one plan counts within these multiples of its promise: some of it is chance."""
CHANGED_RATIO = 0.25
"""What is owed has changed by more than this: another load, not a broken promise."""
LEAST_PLANS = 2
FADING = 0.75
"""What counts of the former plans when another one has been judged."""
LASTS_S = 600.0
FACTOR = 2.0


@dataclass(frozen=True, slots=True)
class Expectation:
    """What one plan promised, and what has been seen since. All figures in pCPUs."""

    at_s: float
    masks: Mapping[VcpuKey, frozenset[int]]
    """Where the plan put whom."""
    pcpus: frozenset[int]
    """Where that changes anything."""
    residents: frozenset[VcpuKey]
    """Who is to run nowhere but there."""
    owed: float
    """To the residents."""
    missing: float
    """What they were owed and did not get before the plan."""
    gain: float
    missing_since: tuple[float, ...] = ()
    """The same at each decision since."""


@dataclass(frozen=True, slots=True)
class BackOff:
    """Promises not yet judged, and what has come of former ones."""

    pending: tuple[Expectation, ...] = ()
    promised: float = 0.0
    came: float = 0.0
    """pCPUs in sum, older plans counting less."""
    plans: int = 0
    until_s: float = 0.0
    """Until then more is needed."""

    def factor(self, now_s: float) -> float:
        """Return by what to multiply the standard errors that a change must pass."""
        return FACTOR if now_s < self.until_s else 1.0


def expect(
    state: BackOff,
    estimate: CpuEstimate,
    entitled: Mapping[VcpuKey, float],
    pins: Iterable[Pin],
    now_s: float,
) -> BackOff:
    """Take down what a plan promises; earlier ones for the same pCPUs are judged now."""
    pins = tuple(pins)
    masks = {pin.vcpu: pin.cpus for pin in pins}
    before = (vcpu.affinity for vcpu in estimate.vcpus if vcpu.key in masks)
    pcpus = frozenset[int]().union(*before, *masks.values())
    touched = tuple(e for e in state.pending if e.pcpus & pcpus)
    state = replace(state, pending=tuple(e for e in state.pending if e not in touched))
    for expectation in touched:
        state = _judged(state, expectation, now_s)
    foretold = promise(estimate, entitled, pins)
    gain = foretold.before.shortfall - foretold.after.shortfall
    if gain < LEAST_PCPUS:
        return state
    after = placed(estimate, pins)
    residents = frozenset(vcpu.key for vcpu in after.vcpus if vcpu.affinity <= pcpus)
    owed = sum(entitled[key] for key in residents)
    missing = _missing(estimate, entitled, residents)
    new = Expectation(now_s, masks, pcpus, residents, owed, missing, gain)
    return replace(state, pending=(*state.pending, new))


def review(
    state: BackOff, estimate: CpuEstimate, entitled: Mapping[VcpuKey, float], now_s: float
) -> BackOff:
    """Look at what has come of the promises; called before every decision."""
    pending: list[Expectation] = []
    over: list[Expectation] = []
    affinities = {vcpu.key: vcpu.affinity for vcpu in estimate.vcpus}
    for expectation in state.pending:
        age_s = now_s - expectation.at_s
        if age_s < max(SEEN_FROM_S, estimate.window_s):
            pending.append(expectation)
            continue
        owed = sum(entitled.get(key, 0.0) for key in expectation.residents)
        is_other = abs(owed - expectation.owed) > CHANGED_RATIO * expectation.owed
        if is_other or any(affinities.get(k) != mask for k, mask in expectation.masks.items()):
            continue
        missing = _missing(estimate, entitled, expectation.residents)
        seen = replace(expectation, missing_since=(*expectation.missing_since, missing))
        (over if age_s >= SEEN_TO_S else pending).append(seen)
    state = replace(state, pending=tuple(pending))
    for expectation in over:
        state = _judged(state, expectation, now_s)
    return state


def _judged(state: BackOff, expectation: Expectation, now_s: float) -> BackOff:
    if not expectation.missing_since:
        return state
    since = sum(expectation.missing_since) / len(expectation.missing_since)
    least, most = (ratio * expectation.gain for ratio in LUCK)
    judged = replace(
        state,
        promised=FADING * state.promised + expectation.gain,
        came=FADING * state.came + max(least, min(most, expectation.missing - since)),
        plans=state.plans + 1,
    )
    if judged.plans < LEAST_PLANS or judged.came >= KEPT_RATIO * judged.promised:
        return judged
    return BackOff(pending=state.pending, until_s=now_s + LASTS_S)


def _missing(
    estimate: CpuEstimate, entitled: Mapping[VcpuKey, float], residents: Collection[VcpuKey]
) -> float:
    """Return what some vCPUs are owed and do not get, in pCPUs."""
    return sum(
        max(0.0, entitled[vcpu.key] - vcpu.run_ratio)
        for vcpu in estimate.vcpus
        if vcpu.key in residents
    )
