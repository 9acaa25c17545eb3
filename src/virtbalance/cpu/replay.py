"""What everybody was entitled to in the last seconds, as numbers to play a placement through.

Every vCPU has one row, every remembered moment a column; the newest is the last. What a vCPU wanted
before its demand last changed is not known any more: its mean since then stands there instead.

*Doubt*: guests show nearly a whole pCPU for seconds after launch, and whatever changed a moment
ago may change back. vCPUs whose demand is not settled are therefore read twice, once as measured
and once as the average of all unsettled ones, and a change must be good both times. Eight
launching guests on one of four pCPUs are spread at once, two on each; eight that are even already
stay, though some finish launching a second before others.
"""

from dataclasses import dataclass

import numpy as np

from virtbalance.cpu.fairness import entitlement
from virtbalance.cpu.history import mean
from virtbalance.cpu.strain import Array
from virtbalance.model.cpu_estimate import CpuEstimate, VcpuEstimate
from virtbalance.model.guest import VcpuKey


@dataclass(frozen=True, slots=True)
class Record:
    """Entitlements by vCPU and moment under each reading, in the order of the estimate."""

    readings: tuple[Array, ...]
    """Each shaped (vCPUs, samples)."""
    lengths: tuple[int, ...]
    """How many of the newest samples each vCPU really has."""
    entitled: dict[VcpuKey, float]
    """The means of the first reading."""


def recorded(estimate: CpuEstimate) -> Record:
    """Return what is known of everybody's demands, scaled to what each is entitled to."""
    wanted = [_believed(vcpu) for vcpu in estimate.vcpus]
    samples = max((len(vcpu.history) for vcpu in estimate.vcpus), default=0) or 1
    demands = np.array(
        [
            (level,) * (samples - len(vcpu.history)) + vcpu.history
            for vcpu, level in zip(estimate.vcpus, wanted, strict=True)
        ],
        dtype=np.float64,
    ).reshape(len(estimate.vcpus), samples)
    parts = _parts(estimate, wanted)
    measured = demands * (parts / np.maximum(wanted, 1e-9))[:, None]
    steady = np.broadcast_to(measured.mean(axis=-1, keepdims=True), measured.shape)
    readings = [measured, steady]
    doubted = [place for place, vcpu in enumerate(estimate.vcpus) if not vcpu.settled]
    if doubted:
        average = mean([wanted[place] for place in doubted])
        equal = list(wanted)
        for place in doubted:
            equal[place] = average
            demands[place] = average
        readings.append(demands * (_parts(estimate, equal) / np.maximum(equal, 1e-9))[:, None])
    return Record(
        tuple(readings),
        tuple(len(vcpu.history) for vcpu in estimate.vcpus),
        {vcpu.key: float(part) for vcpu, part in zip(estimate.vcpus, parts, strict=True)},
    )


def _parts(estimate: CpuEstimate, wanted: list[float]) -> Array:
    parts = entitlement(
        estimate, {v.key: demand for v, demand in zip(estimate.vcpus, wanted, strict=True)}
    )
    return np.array([parts[vcpu.key] for vcpu in estimate.vcpus])


def _believed(vcpu: VcpuEstimate) -> float:
    """Return its demand: the mean since it last changed, or what it shows now."""
    return mean(vcpu.history) if vcpu.settled and vcpu.history else vcpu.demand_ratio
