"""When promised gains don't come: ask for more before moving anybody again.

A plan promises that some entitlement will be delivered that is not now (see ``promise``). From 2 to
8 s after it has been carried out the counters say what really came of it: what the vCPUs on the
pCPUs it touched are owed, less what they ran. If less than half of the promise has come, that is a
disappointment; two in a row double the gain that is needed for 10 minutes (cpu.md, section 11), so
that two placements of which each looks better from the other are not taken in turn for ever.

Not judged are plans that promise less than 0.05 pCPUs, that were not carried out as asked, or after
which something else is wanted: those say nothing about the way gains are foretold. A plan for the
same pCPUs ends the wait: what has been seen until then must do.

Example: pCPU 0 carries 1.30, pCPU 1 0.50; a move of 0.40 promises 0.30. Six seconds later the vCPUs
on the two are still owed 0.25: 0.05 came of 0.30, a disappointment.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from virtbalance.cpu.promise import placed, promise
from virtbalance.model.cpu_estimate import CpuEstimate, VcpuEstimate
from virtbalance.model.guest import VcpuKey
from virtbalance.model.plan import Pin

SEEN_FROM_S = 2.0
"""The counters' window must lie behind the move."""
SEEN_TO_S = 8.0
LEAST_PCPUS = 0.05
KEPT_RATIO = 0.5
"""What must have come of a promise."""
CHANGED_RATIO = 0.25
"""What is owed has changed by more than this: another load, not a broken promise."""
IN_A_ROW = 2
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
    owed: float
    """To those who live there."""
    shortfall: float
    """On these pCPUs before the plan."""
    gain: float
    undelivered: tuple[float, ...] = ()
    """What those who live there were owed and did not get, at each decision since."""


@dataclass(frozen=True, slots=True)
class BackOff:
    """Promises not yet judged, and the disappointments since one was last kept."""

    pending: tuple[Expectation, ...] = ()
    disappointments: int = 0
    until_s: float = 0.0
    """Until then more is needed."""

    def factor(self, now_s: float) -> float:
        """Return by what to multiply the gain that a change must have."""
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
    moved = [vcpu for vcpu in estimate.vcpus if vcpu.key in masks]
    pcpus = frozenset().union(*(vcpu.affinity | masks[vcpu.key] for vcpu in moved))
    touched = tuple(e for e in state.pending if e.pcpus & pcpus)
    state = replace(state, pending=tuple(e for e in state.pending if e not in touched))
    for expectation in touched:
        state = _judge(state, expectation, now_s)
    gain, shortfall = _foretold(estimate, entitled, pins, pcpus)
    if gain < LEAST_PCPUS:
        return state
    after = placed(estimate, pins)
    owed = sum(entitled[vcpu.key] for vcpu in _residents(after, pcpus))
    new = Expectation(now_s, masks, pcpus, owed, shortfall, gain)
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
        if age_s < SEEN_FROM_S:
            pending.append(expectation)
            continue
        residents = _residents(estimate, expectation.pcpus)
        owed = sum(entitled[vcpu.key] for vcpu in residents)
        is_other = abs(owed - expectation.owed) > CHANGED_RATIO * expectation.owed
        if is_other or any(affinities.get(k) != mask for k, mask in expectation.masks.items()):
            continue
        missing = sum(max(0.0, entitled[vcpu.key] - vcpu.run_ratio) for vcpu in residents)
        seen = replace(expectation, undelivered=(*expectation.undelivered, missing))
        (over if age_s >= SEEN_TO_S else pending).append(seen)
    state = replace(state, pending=tuple(pending))
    for expectation in over:
        state = _judge(state, expectation, now_s)
    return state


def _judge(state: BackOff, expectation: Expectation, now_s: float) -> BackOff:
    if not expectation.undelivered:
        return state
    undelivered = sum(expectation.undelivered) / len(expectation.undelivered)
    if expectation.shortfall - undelivered >= KEPT_RATIO * expectation.gain:
        return replace(state, disappointments=0)
    disappointments = state.disappointments + 1
    if disappointments < IN_A_ROW:
        return replace(state, disappointments=disappointments)
    return replace(state, disappointments=0, until_s=now_s + LASTS_S)


def _foretold(
    estimate: CpuEstimate,
    entitled: Mapping[VcpuKey, float],
    pins: Iterable[Pin],
    pcpus: frozenset[int],
) -> tuple[float, float]:
    """Return the shortfall on some pCPUs that a plan promises to end, and all of it there."""
    promised = promise(estimate, entitled, pins)
    room = {cpu: estimate.capacity[cpu] for cpu in pcpus if cpu in estimate.capacity}
    before, after = (
        sum(max(0.0, service.loads[cpu] - room[cpu]) for cpu in room)
        for service in (promised.before, promised.after)
    )
    return before - after, before


def _residents(estimate: CpuEstimate, pcpus: frozenset[int]) -> list[VcpuEstimate]:
    """Return those who may run nowhere but on these pCPUs."""
    return [vcpu for vcpu in estimate.vcpus if vcpu.affinity <= pcpus]
