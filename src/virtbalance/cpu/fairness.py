"""What everybody is entitled to: weighted max-min of the host's CPU time, in two levels.

Guests share first, by weight, each up to what all its vCPUs want; then the vCPUs of a guest share
what it got, so what a light one leaves stays in its guest. In symbols x = min(demand, weight x
level), with one level for all that want more, and the sum = min(sum of demands, capacity). A
weight too large to be used solves itself: its owner gets its demand, the others share the rest.

vCPUs that may use only some CPUs share those first, if they want more than these can give: four
hogs confined to one CPU are owed that CPU, not four. With masks inside one another that is exact;
where they overlap otherwise it is close.

If every pCPU carries its capacity's worth of entitlement, plain fair sharing on each delivers just
that: evening out entitlement is global fairness, and a vCPU that wants the whole of an overloaded
host counts no more than its share (cpu.md, section 5).

Example: three hogs of weight 1 on two pCPUs are entitled to 2/3 each; a vCPU that wants 0.1
beside two hogs on one pCPU to 0.1, the hogs to 0.45 each.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from virtbalance.model.cpu_estimate import CpuEstimate, VcpuEstimate
from virtbalance.model.guest import VcpuKey


def entitlement(estimate: CpuEstimate, demand: Mapping[VcpuKey, float]) -> dict[VcpuKey, float]:
    """Return every vCPU's part of the host, in pCPUs, given what each wants."""
    capacity = dict(estimate.capacity)
    by_mask: dict[frozenset[int], list[VcpuEstimate]] = defaultdict(list)
    for vcpu in estimate.vcpus:
        by_mask[_reach(vcpu).intersection(capacity)].append(vcpu)
    settled: dict[VcpuKey, float] = {}
    while True:
        rest = [vcpu for vcpus in by_mask.values() for vcpu in vcpus]
        parts = _share(rest, demand, sum(capacity.values()))
        mask = _overfull(by_mask, parts, capacity)
        if mask is None:
            return settled | parts
        inside = [v for inner in list(by_mask) if inner <= mask for v in by_mask.pop(inner)]
        settled |= _share(inside, demand, sum(capacity[cpu] for cpu in mask))
        capacity |= dict.fromkeys(mask, 0.0)


def _overfull(
    by_mask: Mapping[frozenset[int], Sequence[VcpuEstimate]],
    parts: Mapping[VcpuKey, float],
    capacity: Mapping[int, float],
) -> frozenset[int] | None:
    """Return the smallest mask whose vCPUs are given more than its CPUs can give."""
    owed = {mask: sum(parts[vcpu.key] for vcpu in vcpus) for mask, vcpus in by_mask.items()}
    for mask in sorted(by_mask, key=lambda mask: (len(mask), sorted(mask))):
        inside = sum(part for inner, part in owed.items() if inner <= mask)
        if len(mask) < len(capacity) and inside > sum(capacity[cpu] for cpu in mask) + 1e-9:
            return mask
    return None


def max_min(wants: Sequence[float], weights: Sequence[float], capacity: float) -> list[float]:
    """Return min(want, weight x level) for each, with the highest level that capacity allows."""
    parts = list(wants)
    if sum(wants) <= capacity:
        return parts
    left, weight = capacity, sum(weights)
    order = sorted(range(len(wants)), key=lambda i: wants[i] / weights[i])
    for rank, i in enumerate(order):
        level = left / weight
        if wants[i] > weights[i] * level:
            for j in order[rank:]:
                parts[j] = weights[j] * level
            return parts
        left -= wants[i]
        weight -= weights[i]
    return parts


def _reach(vcpu: VcpuEstimate) -> frozenset[int]:
    """Return the CPUs that a placement may use for it: where it must stay, only those."""
    return vcpu.allowed if vcpu.fixed is None else vcpu.affinity


def _share(
    vcpus: Sequence[VcpuEstimate], demand: Mapping[VcpuKey, float], room: float
) -> dict[VcpuKey, float]:
    guests: dict[str, list[VcpuEstimate]] = defaultdict(list)
    for vcpu in vcpus:
        guests[vcpu.key.uuid].append(vcpu)
    wants = [sum(demand[vcpu.key] for vcpu in members) for members in guests.values()]
    weights = [members[0].weight for members in guests.values()]
    parts: dict[VcpuKey, float] = {}
    for members, part in zip(guests.values(), max_min(wants, weights, room), strict=True):
        inner = max_min([demand[v.key] for v in members], [1.0] * len(members), part)
        parts |= {vcpu.key: share for vcpu, share in zip(members, inner, strict=True)}
    return parts
