"""Taking turns where loads don't divide: what each vCPU is owed, and who moves.

Three hogs on two pCPUs: A and B share one and get 0.50 each, C has 1.00, and no placement is
fairer. Each is entitled to 2/3, so A and B are owed 0.17 s more every second and C 0.33 s less.
When the most owed and the most favoured are 1 s apart (every 2 s here), the one beside the most
owed moves over to the most favoured: A is alone, B and C share. In the long run everyone gets 2/3
at one pin every two seconds (cpu.md, section 13, where they change places with two pins).

It is done only where the two pCPUs exchange their loads by it, so the host stays as even as it is.
Where evening still finds something to do, that is the cure, and debts of the former placement are
forgiven: else the first turn undoes what the last move has done. Where it has something in sight
that is not sure yet, the turn waits for it: an eighth fewer pins on PlanetLab 0.85, ten seeds.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from virtbalance.model.cpu_estimate import CpuEstimate, VcpuEstimate
from virtbalance.model.guest import VcpuKey
from virtbalance.model.plan import Pin

ALIKE_RATIO = 0.1
"""Loads that differ by less than this part of a pCPU are taken as equal here."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One vCPU moves, so that another is served better."""

    moved: VcpuEstimate
    owed: VcpuEstimate
    """Stays, with more room."""
    favoured: VcpuEstimate
    """Gets company."""


@dataclass(frozen=True, slots=True)
class Deficits:
    """CPU time owed to each vCPU, in seconds; negative: it had more than its part."""

    at_s: float
    owed_s: Mapping[VcpuKey, float] = field(default_factory=dict)

    def of(self, vcpu: VcpuEstimate) -> float:
        """Return what one vCPU is owed."""
        return self.owed_s.get(vcpu.key, 0.0)


def accrue(
    former: Deficits | None,
    estimate: CpuEstimate,
    entitled: Mapping[VcpuKey, float],
    now_s: float,
    limit_s: float,
) -> Deficits:
    """Return the deficits after one more interval; none exceeds the limit either way."""
    if former is None:
        return Deficits(now_s)
    span_s = now_s - former.at_s
    owed_s = {}
    for vcpu in estimate.vcpus:
        owed = former.owed_s.get(vcpu.key, 0.0) + span_s * (entitled[vcpu.key] - vcpu.run_ratio)
        owed_s[vcpu.key] = max(-limit_s, min(limit_s, owed))
    return Deficits(now_s, owed_s)


def forgiven(deficits: Deficits, estimate: CpuEstimate, pins: Collection[Pin]) -> Deficits:
    """Return the deficits without those of vCPUs on pCPUs whose residents change."""
    homes = {vcpu.key: vcpu.home for vcpu in estimate.vcpus}
    changed = {homes[pin.vcpu] for pin in pins} | {cpu for pin in pins for cpu in pin.cpus}
    kept = {key: owed for key, owed in deficits.owed_s.items() if homes[key] not in changed}
    return Deficits(deficits.at_s, kept)


def turns(
    deficits: Deficits,
    estimate: CpuEstimate,
    entitled: Mapping[VcpuKey, float],
    relative: Mapping[int, float],
    least_s: float,
) -> tuple[Turn, ...]:
    """Return the turns that are due, the greatest injustice first; no pCPU is in two of them."""
    able = [v for v in estimate.vcpus if v.fixed is None and v.settled and v.home in relative]
    by_debt = sorted(able, key=lambda v: (deficits.of(v), v.key))
    found: list[Turn] = []
    while True:
        turn = _most_due(deficits, by_debt, entitled, relative, least_s)
        if turn is None:
            return tuple(found)
        found.append(turn)
        taken = (turn.owed.home, turn.favoured.home)
        by_debt = [vcpu for vcpu in by_debt if vcpu.home not in taken]


def _most_due(
    deficits: Deficits,
    by_debt: Sequence[VcpuEstimate],
    entitled: Mapping[VcpuKey, float],
    relative: Mapping[int, float],
    least_s: float,
) -> Turn | None:
    for owed in reversed(by_debt):
        if deficits.of(owed) - deficits.of(by_debt[0]) <= least_s:
            return None
        if _load(owed, relative) <= 1:
            continue
        beside = [v for v in by_debt if v.home == owed.home and v is not owed]
        for favoured in by_debt:
            if deficits.of(owed) - deficits.of(favoured) <= least_s:
                break
            gap = _load(owed, relative) - _load(favoured, relative)
            for moved in beside:
                fits = math.isclose(gap, entitled[moved.key], abs_tol=ALIKE_RATIO)
                if fits and gap > ALIKE_RATIO and favoured.home in moved.allowed:
                    return Turn(moved, owed, favoured)
    return None


def _load(vcpu: VcpuEstimate, relative: Mapping[int, float]) -> float:
    assert vcpu.home is not None
    return relative[vcpu.home]
