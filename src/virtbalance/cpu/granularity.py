"""Sets of pCPUs instead of single ones: the same decision with domains in the place of pCPUs.

A vCPU that may run on eight pCPUs finds an idle one within a millisecond, where one pinned to a
single pCPU waits behind its neighbours: with bursty vCPUs at 50 to 80 % load single pins leave 13
to 25 % of the machine idle while somebody waits, sets of eight 0.2 to 4 % (cpu.md, section 12).

A domain is the pCPUs under one last-level cache, cut into parts of at most eight; or, where only
memory matters, a whole NUMA node. ``fold`` makes each domain one large pCPU named by its lowest
number, ``unfold`` turns the answer back into masks. On a host of one domain there is nothing to
decide: the kernel does it all, and the best mask is none.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from virtbalance.cpu.strain import SHARED_CORE_RATIO
from virtbalance.model.cpu_estimate import CpuEstimate, VcpuEstimate
from virtbalance.model.cpu_list import format_cpu_list
from virtbalance.model.plan import Figure, Pin, Reason
from virtbalance.model.topology import Pcpu, Topology

LARGEST = 8
"""pCPUs in a domain; cpu.md, section 12."""

CROWDED_WAIT_RATIO = 0.05
"""Who waits longer in a narrow mask would be run elsewhere by the kernel."""
FITTING_RATIO = 0.5
"""Those who remain there may always want this part of it."""
TOLERANCE = 0.05
"""pCPUs; loads that differ by less are taken as equal."""

Domains = Mapping[int, frozenset[int]]


def domains_of(estimate: CpuEstimate) -> Domains:
    """Return the host's domains by their lowest pCPU; threads of a core stay together."""
    caches: dict[int, list[Pcpu]] = defaultdict(list)
    for cpu in estimate.capacity:
        pcpu = estimate.topology.by_id[cpu]
        caches[pcpu.llc].append(pcpu)
    found = {}
    for pcpus in caches.values():
        pcpus.sort(key=lambda pcpu: (pcpu.core, pcpu.id))
        parts = -(-len(pcpus) // LARGEST)
        size = -(-len(pcpus) // parts)
        for first in range(0, len(pcpus), size):
            part = frozenset(pcpu.id for pcpu in pcpus[first : first + size])
            found[min(part)] = part
    return dict(sorted(found.items()))


def nodes_of(estimate: CpuEstimate) -> Domains:
    """Return the host's NUMA nodes by their lowest pCPU."""
    nodes: dict[int, list[int]] = defaultdict(list)
    for cpu in sorted(estimate.capacity):
        nodes[estimate.topology.by_id[cpu].node].append(cpu)
    return {min(cpus): frozenset(cpus) for cpus in nodes.values()}


def fold(estimate: CpuEstimate, domains: Domains) -> CpuEstimate:
    """Return the estimate with domains in the place of pCPUs."""
    known = estimate.topology.by_id
    masks = {mask for vcpu in estimate.vcpus for mask in (vcpu.affinity, vcpu.allowed)}
    touched = {mask: _touched(mask, domains) for mask in masks}
    return replace(
        estimate,
        topology=Topology(
            tuple(Pcpu(d, d, known[d].llc, known[d].node) for d in sorted(domains)),
        ),
        capacity={d: sum(estimate.capacity[cpu] for cpu in domains[d]) for d in sorted(domains)},
        vcpus=tuple(
            replace(vcpu, affinity=touched[vcpu.affinity], allowed=touched[vcpu.allowed])
            for vcpu in estimate.vcpus
        ),
    )


def unfold(pins: tuple[Pin, ...], estimate: CpuEstimate, domains: Domains) -> Iterator[Pin]:
    """Yield the pins with domains' pCPUs as masks."""
    vcpus = {vcpu.key: vcpu for vcpu in estimate.vcpus}
    for pin in pins:
        (domain,) = pin.cpus
        figures = dict(pin.reason.figures)
        for end in ("source", "target"):
            if end in figures:
                figures[end] = format_cpu_list(domains[int(figures[end] or 0)])
        mask = domains[domain] & vcpus[pin.vcpu].allowed
        yield Pin(pin.vcpu, mask, Reason(pin.reason.rule, pin.reason.template, figures))


def widened(vcpus: Iterable[VcpuEstimate], domains: Domains) -> Iterator[Pin]:
    """Yield pins that let vCPUs run in all of the domain which their masks are a part of."""
    for vcpu in vcpus:
        if vcpu.fixed is None:
            yield from _widen(vcpu, domains)


def crowded(estimate: CpuEstimate) -> Iterator[VcpuEstimate]:
    """Yield who should be freed from narrow masks: the heaviest, until the rest fits.

    vCPUs confined to one core count together, others by their mask. They are too many where they
    wait, or want more than the core gives, and more than their part of the whole host's load.

    Example: eight vCPUs of 0.37 on one pCPU of four, a mean load of 0.74: six are freed, two may
    stay where they are. Were there eight on each, nobody would gain.
    """
    room = {cpu: _room(cpu, estimate) for cpu in estimate.capacity}
    level = sum(vcpu.demand_ratio for vcpu in estimate.vcpus) / (sum(room.values()) or 1.0)
    for cpus, members in _confined(estimate).items():
        gives = sum(room[cpu] for cpu in cpus)
        load = sum(vcpu.demand_ratio for vcpu in members)
        for vcpu in sorted(members, key=lambda v: (-v.demand_ratio, v.key)):
            waits = (vcpu.wait_ratio or 0.0) > CROWDED_WAIT_RATIO or load > gives
            if waits and load > TOLERANCE + max(FITTING_RATIO, level) * gives:
                load -= vcpu.demand_ratio
                yield vcpu


def _room(cpu: int, estimate: CpuEstimate) -> float:
    """Return what a pCPU gives while the threads of its core are all busy."""
    core = estimate.topology.by_id[cpu].core
    siblings = sum(estimate.topology.by_id[other].core == core for other in estimate.capacity)
    return estimate.capacity[cpu] * (SHARED_CORE_RATIO if siblings > 1 else 1.0)


def _confined(estimate: CpuEstimate) -> dict[frozenset[int], list[VcpuEstimate]]:
    cores: dict[int, set[int]] = defaultdict(set)
    for cpu in estimate.capacity:
        cores[estimate.topology.by_id[cpu].core].add(cpu)
    by_mask: dict[frozenset[int], list[VcpuEstimate]] = defaultdict(list)
    for vcpu in estimate.vcpus:
        by_mask[vcpu.affinity].append(vcpu)
    groups: dict[frozenset[int], list[VcpuEstimate]] = defaultdict(list)
    for affinity, members in by_mask.items():
        mask = affinity & estimate.capacity.keys()
        own = {estimate.topology.by_id[cpu].core for cpu in mask}
        groups[frozenset(cores[min(own)]) if len(own) == 1 else frozenset(mask)] += members
    return groups


def _widen(vcpu: VcpuEstimate, domains: Domains) -> Iterator[Pin]:
    for domain in domains.values():
        mask = domain & vcpu.allowed
        if vcpu.affinity < mask:
            text = "confined to pCPU {source} where any of {target} will do"
            figures: dict[str, Figure] = {
                "vcpu": f"{vcpu.guest_name}/{vcpu.key.vcpu}",
                "source": format_cpu_list(vcpu.affinity),
                "target": format_cpu_list(mask),
            }
            if vcpu.wait_ratio:
                text += "; it waits {wait:.0%} of the time"
                figures["wait"] = vcpu.wait_ratio
            yield Pin(vcpu.key, mask, Reason("widen", text, figures))


def _touched(cpus: frozenset[int], domains: Domains) -> frozenset[int]:
    return frozenset(domain for domain, members in domains.items() if members & cpus)
