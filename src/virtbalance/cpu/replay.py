"""What everybody was entitled to in the last seconds, as numbers to play a placement through.

Every vCPU has one row, every remembered moment a column; the newest is the last. What a vCPU wanted
before its demand last changed is not known any more: its mean since then stands there instead.

*Doubt*: guests show nearly a whole pCPU for seconds after launch, and whatever changed a moment
ago may change back. vCPUs whose demand is not settled are therefore read twice, once as measured
and once as the average of all unsettled ones, and a change must be good both times. Eight
launching guests on one of four pCPUs are spread at once, two on each; eight that are even already
stay, though some finish launching a second before others.

*Tightness*: neither a demand nor what a pCPU can give is known to a hundredth. All demands are read
once more, a little greater: beside a pCPU of 1.02 one of 0.98 looks better as measured, but not if
both are too full. What is a gain only on the edge of enough stays as it is.

*Starvation*: of 144 vCPUs on one pCPU each runs 7 ms a second, which says nothing of what it wants.
One that was never seen better is taken for an average one of those that want more than it got, and
there is nothing to test. So a heap is spread at the first look, two on each of 72 pCPUs; and while
that goes on, half of them still in the heap, those weigh as much as the others turn out to want.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from virtbalance.cpu.fairness import entitlement
from virtbalance.cpu.history import mean
from virtbalance.cpu.strain import Array
from virtbalance.cpu.trigger import LEAST_SAMPLES
from virtbalance.model.cpu_estimate import CpuEstimate, VcpuEstimate
from virtbalance.model.guest import VcpuKey

TIGHTER = 1.06
"""Demands of the third reading, relative to the measured ones. Without it PlanetLab's 0.85 is
misplaced a tenth worse, and real guests whose pCPUs are nearly full are swapped to and fro."""


@dataclass(frozen=True, slots=True)
class Record:
    """Entitlements by vCPU and moment under each reading, in the order of the estimate."""

    readings: tuple[Array, ...]
    """Each shaped (vCPUs, samples)."""
    lengths: tuple[int, ...]
    """How many of the newest samples each vCPU really has; for a guess there is nothing to test."""
    entitled: dict[VcpuKey, float]
    """The means of the first reading."""


def recorded(estimate: CpuEstimate) -> Record:
    """Return what is known of everybody's demands, scaled to what each is entitled to."""
    vcpus = estimate.vcpus
    histories = [() if _unknown(vcpu) else vcpu.history for vcpu in vcpus]
    wanted = _believed(vcpus)
    samples = max([LEAST_SAMPLES, *map(len, histories)])
    demands = np.array(
        [
            (level,) * (samples - len(history)) + history
            for level, history in zip(wanted, histories, strict=True)
        ],
        dtype=np.float64,
    ).reshape(len(vcpus), samples)
    parts = _parts(estimate, wanted)
    measured = demands * (parts / np.maximum(wanted, 1e-9))[:, None]
    steady = np.broadcast_to(measured.mean(axis=-1, keepdims=True), measured.shape)
    readings = [measured, steady, TIGHTER * measured]
    doubted = [place for place, vcpu in enumerate(vcpus) if not vcpu.settled]
    if doubted:
        average = mean([wanted[place] for place in doubted])
        equal = list(wanted)
        for place in doubted:
            equal[place] = average
            demands[place] = average
        readings.append(demands * (_parts(estimate, equal) / np.maximum(equal, 1e-9))[:, None])
    return Record(
        tuple(readings),
        tuple(samples if _unknown(vcpu) else len(vcpu.history) for vcpu in vcpus),
        {vcpu.key: float(part) for vcpu, part in zip(vcpus, parts, strict=True)},
    )


def _parts(estimate: CpuEstimate, wanted: list[float]) -> Array:
    parts = entitlement(
        estimate, {v.key: demand for v, demand in zip(estimate.vcpus, wanted, strict=True)}
    )
    return np.array([parts[vcpu.key] for vcpu in estimate.vcpus])


def _unknown(vcpu: VcpuEstimate) -> bool:
    return vcpu.starved and len(vcpu.history) < LEAST_SAMPLES


def _believed(vcpus: Sequence[VcpuEstimate]) -> list[float]:
    """Return every demand: the mean since it last changed, or what it shows now, or a guess."""
    crowd = [vcpu for vcpu in vcpus if _unknown(vcpu)]
    seen = [_shown(vcpu) for vcpu in vcpus]
    if not crowd:
        return seen
    got = mean([vcpu.run_ratio for vcpu in crowd])
    known = zip(vcpus, seen, strict=True)
    more = [demand for vcpu, demand in known if not _unknown(vcpu) and demand > got]
    guess = mean(more or [vcpu.demand_ratio for vcpu in crowd])
    return [guess if _unknown(vcpu) else demand for vcpu, demand in zip(vcpus, seen, strict=True)]


def _shown(vcpu: VcpuEstimate) -> float:
    return mean(vcpu.history) if vcpu.settled and vcpu.history else vcpu.demand_ratio
