"""A placement while it is being worked on, under every recorded sample.

Loads are kept as numbers for each *reading* of the demands, core, thread and sample, so that
thousands of changes are weighed in one sweep (see ``strain`` for what a load costs). vCPUs and
pCPUs are numbered here: by their place in the estimate, and in the sorted list of usable CPUs.

A *partner* is where a vCPU could go: a pCPU, alone or in exchange for one of those who live there.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from virtbalance.cpu.load import shared_over
from virtbalance.cpu.nearness import OTHER_CACHE_RATIO, REMOTE_MEMORY_RATIO, move_cost_s
from virtbalance.cpu.strain import Array, strain
from virtbalance.model.cpu_estimate import CpuEstimate

Numbers = NDArray[np.intp]

NOBODY = -1
SIBLINGS = 0.05
"""vCPUs of one guest on one pCPU hinder each other by this share of the lesser one's load;
cpu.md, section 6."""
BARRED = -1e6
"""pCPUs, the gain of what must not be: finite, so that sums of gains stay numbers."""
NO_ROOM = 1.0
"""Capacity of a thread that does not exist, on hosts whose cores have unequal numbers of them."""


@dataclass(frozen=True, slots=True)
class Partners:
    """Where a vCPU could go, and who would come back from there (``NOBODY``: a plain move)."""

    pcpus: Numbers
    back: Numbers


class Board:
    """Who lives where, and what every pCPU carries at every sample under every reading."""

    def __init__(self, estimate: CpuEstimate, readings: Sequence[Array]) -> None:
        """Begin with the present placement.

        ``readings``: entitlements, each shaped (vCPUs, samples), in the estimate's order.
        """
        self.estimate = estimate
        self.cpus = sorted(estimate.capacity)
        self.entitled = np.stack(readings)
        self.mean = self.entitled[0].mean(axis=-1)
        self._number = number = {cpu: place for place, cpu in enumerate(self.cpus)}
        pcpus = [estimate.topology.by_id[cpu] for cpu in self.cpus]
        self._pcpus = pcpus
        self._node = np.array([pcpu.node for pcpu in pcpus], dtype=np.intp)
        self._cache = np.array([pcpu.llc for pcpu in pcpus], dtype=np.intp)
        self._lay_out_cores()
        self._memory_node = np.array(
            [NOBODY if v.memory_node is None else v.memory_node for v in estimate.vcpus], np.intp
        )
        self._siblings = _siblings(estimate)
        self.homes: list[int | None] = [
            number.get(v.home) if v.home is not None else None for v in estimate.vcpus
        ]
        self._allowed = _allowed(estimate, number)
        self._find_caches()
        self._factor = np.ones(len(estimate.vcpus))
        self.residents: dict[int, set[int]] = defaultdict(set)
        floating: dict[frozenset[int], list[int]] = defaultdict(list)
        for vcpu, home in enumerate(self.homes):
            if home is not None:
                self._put(vcpu, home)
            else:
                floating[estimate.vcpus[vcpu].affinity].append(vcpu)
        for vcpus in floating.values():
            self._spread(vcpus, 1.0)

    def relative(self) -> Array:
        """Return the mean load of every pCPU by the first reading; 1 = all that it can give."""
        loads = self._loads[0, self._core, self._thread].mean(axis=-1)
        relative: Array = loads / self._capacity[self._core, self._thread]
        return relative

    def strains(self) -> Array:
        """Return the mean strain of every pCPU's core by the first reading."""
        by_core: Array = strain(self._loads[0], self._capacity).mean(axis=-1)
        strains: Array = np.take(by_core, self._core)
        return strains

    def movable(self, pcpu: int) -> list[int]:
        """Return those who live on a pCPU and may leave it."""
        vcpus = self.estimate.vcpus
        return sorted(vcpu for vcpu in self.residents[pcpu] if vcpus[vcpu].fixed is None)

    def gains(
        self,
        vcpus: Sequence[int],
        source: int,
        partners: Partners,
        alike: NDArray[np.bool_] | None = None,
    ) -> Array:
        """Return by how much each exchange relieves the host, in pCPUs, at every sample.

        That is the fall in strain of all cores, less the time that distance to memory and to
        siblings costs, less how much more siblings are in each other's way.

        Shaped (readings, vcpus, partners, samples). What is not allowed gains ``BARRED``, and so
        does a vCPU that has its core to itself: it moves nearer to its memory, or not at all.

        ``alike``, shaped (vcpus, partners): exchanges whose fall in strain is not to count.
        """
        moved = np.array(vcpus, dtype=np.intp)
        pcpus, back = partners.pcpus, partners.back
        comes = back != NOBODY
        leaving = self._shifted(moved, np.full(len(moved), source))[:, :, None]
        arriving = self.entitled[:, moved, None] * self._factors(moved[:, None], pcpus)[..., None]
        returning = self._shifted(back, pcpus)[:, None] * comes[:, None]
        settling = self.entitled[:, back] * self._factors(back, np.full(len(back), source))[:, None]
        at_source = settling[:, None] * comes[:, None] - leaving
        at_target = arriving - returning
        gains = self._relief(source, pcpus, at_source, at_target)
        if alike is not None:
            gains[:, alike] = np.minimum(gains[:, alike], 0.0)
        gains -= self._hindrance(moved, source, pcpus, back)[:, :, None]
        gains -= at_source + at_target  # what distance adds to the load of both together
        able = self._allowed[moved[:, None], pcpus] & (~comes | self._allowed[back, source])
        if self._alone(source):
            here = self._factors(moved, np.full(len(moved), source))
            able &= comes | (self._factors(moved[:, None], pcpus) < here[:, None])
        gains[:, ~able] = BARRED
        return gains

    def relief(self, vcpu: int, more: float = 0.0) -> float:
        """Return how far the strain of a vCPU's core falls when it leaves its home, in pCPUs.

        ``more``: what the home is taken to carry besides, in pCPUs.
        """
        home = self.homes[vcpu]
        assert home is not None, "only who has a home can leave it"
        core, thread = self._core[home], self._thread[home]
        before = self._loads[0, core].copy()
        before[thread] += more
        after = before.copy()
        after[thread] -= self.entitled[0, vcpu] * self._factor[vcpu]
        capacity = self._capacity[core]
        return float((strain(before, capacity) - strain(after, capacity)).mean())

    def arrivals(self, vcpu: int) -> Array:
        """Return what each pCPU as the first home of a vCPU would cost the host, in pCPUs."""
        mover = np.array([vcpu])
        pcpus = np.arange(len(self.cpus))
        self._spread([vcpu], -1.0)
        added = self.entitled[:, mover, None] * self._factors(mover, pcpus)[:, None]
        rise: Array = (added - self._relief_there(pcpus, added))[0, 0].mean(axis=-1)
        self._spread([vcpu], 1.0)
        rise += [self._beside(vcpu, pcpu) for pcpu in range(len(self.cpus))]
        rise[~self._allowed[vcpu]] = np.inf
        return rise

    def settle(self, vcpu: int, pcpu: int) -> None:
        """Give a vCPU its first home."""
        self._spread([vcpu], -1.0)
        members = self._siblings[self._guest(vcpu)]
        if all(self.homes[member] is None for member in members):
            self._gather(members, int(self._cache[pcpu]))
        self._put(vcpu, pcpu)

    def exchange(self, moved: int, target: int, back: int) -> None:
        """Move one vCPU, and another one back to where it was unless that is ``NOBODY``."""
        source = self.homes[moved]
        assert source is not None, "only who has a home is exchanged"
        self._take(moved)
        if back != NOBODY:
            self._take(back)
            self._put(back, source)
        self._put(moved, target)

    def regather(self) -> bool:
        """Note anew under which cache most of each guest lives; say whether that has changed."""
        former = self._caches
        self._find_caches()
        if np.array_equal(former, self._caches):
            return False
        for vcpu, home in enumerate(self.homes):
            if home is not None:
                self._take(vcpu)
                self._put(vcpu, home)
        return True

    def cost_s(self, source: int, target: int) -> float:
        """Return what a move between two pCPUs costs, in CPU seconds."""
        return move_cost_s(self._pcpus[source], self._pcpus[target])

    def _lay_out_cores(self) -> None:
        cores: dict[int, list[int]] = defaultdict(list)
        for place, pcpu in enumerate(self._pcpus):
            cores[pcpu.core].append(place)
        self._core = np.zeros(len(self.cpus), dtype=np.intp)
        self._thread = np.zeros(len(self.cpus), dtype=np.intp)
        widest = max((len(members) for members in cores.values()), default=1)
        self._capacity = np.full((len(cores), widest), NO_ROOM)
        for core, members in enumerate(cores.values()):
            for thread, place in enumerate(members):
                self._core[place], self._thread[place] = core, thread
                self._capacity[core, thread] = self.estimate.capacity[self.cpus[place]]
        readings, _, samples = self.entitled.shape
        self._loads = np.zeros((readings, len(cores), widest, samples))

    def _find_caches(self) -> None:
        """Note where most of each guest lives; it is fixed until the next ``regather``."""
        self._caches = np.full(len(self.estimate.vcpus), NOBODY, dtype=np.intp)
        for members in self._siblings.values():
            held: dict[int, float] = defaultdict(float)
            for vcpu in members:
                home = self.homes[vcpu]
                if home is not None:
                    held[int(self._cache[home])] += self.mean[vcpu]
            if held:
                self._gather(members, max(sorted(held), key=lambda cache: held[cache]))

    def _gather(self, members: Sequence[int], cache: int) -> None:
        """Draw a guest of several vCPUs to a cache, if there is another one and it fits here."""
        pcpus = np.flatnonzero(self._cache == cache)
        room = self._capacity[self._core[pcpus], self._thread[pcpus]].sum()
        elsewhere = len(members) > 1 and len(pcpus) < len(self.cpus)
        if elsewhere and self.mean[members].sum() <= room:
            self._caches[members] = cache

    def _factors(self, vcpus: Numbers, pcpus: Numbers) -> Array:
        """Return by how much more time vCPUs need on pCPUs than near their memory and siblings."""
        memory, cache = self._memory_node[vcpus], self._caches[vcpus]
        remote = (memory != NOBODY) & (memory != self._node[pcpus])
        apart = (cache != NOBODY) & (cache != self._cache[pcpus])
        factors: Array = 1 + REMOTE_MEMORY_RATIO * remote + OTHER_CACHE_RATIO * apart
        return factors

    def _shifted(self, vcpus: Numbers, pcpus: Numbers) -> Array:
        """Return what vCPUs weigh where they are."""
        weights: Array = self.entitled[:, vcpus] * self._factors(vcpus, pcpus)[:, None]
        return weights

    def _relief(self, source: int, pcpus: Numbers, at_source: Array, at_target: Array) -> Array:
        """Return the fall in strain; changes are shaped (readings, vcpus, partners, samples)."""
        core, thread = self._core[source], self._thread[source]
        before = self._loads[:, core]
        after = np.repeat(before[:, None, None], at_source.shape[1], axis=1)
        after = np.repeat(after, at_source.shape[2], axis=2)
        after[:, :, :, thread] += at_source
        capacity = self._capacity[core]
        fall = strain(before, capacity)[:, None, None] - strain(after, capacity)
        gains: Array = fall + self._relief_there(pcpus, at_target)
        for partner in np.flatnonzero(self._core[pcpus] == core):
            both = np.repeat(before[:, None], at_target.shape[1], axis=1)
            both[:, :, thread] += at_source[:, :, partner]
            both[:, :, self._thread[pcpus[partner]]] += at_target[:, :, partner]
            gains[:, :, partner] = strain(before, capacity)[:, None] - strain(both, capacity)
        return gains

    def _relief_there(self, pcpus: Numbers, added: Array) -> Array:
        """Return the fall in strain of other cores; ``added`` as ``at_target`` above."""
        cores, threads = self._core[pcpus], self._thread[pcpus]
        before = self._loads[:, cores]
        after = np.repeat(before[:, None], added.shape[1], axis=1)
        after[:, :, np.arange(len(pcpus)), threads] += added
        capacity = self._capacity[cores]
        fall: Array = strain(before, capacity)[:, None] - strain(after, capacity)
        return fall

    def _hindrance(self, moved: Numbers, source: int, pcpus: Numbers, back: Numbers) -> Array:
        """Return how much more vCPUs of the same guests meet after each exchange than before."""
        more = np.zeros((len(moved), len(pcpus)))
        for row, vcpu in enumerate(moved):
            if len(self._siblings[self._guest(vcpu)]) > 1:
                here = self._beside(vcpu, source)
                there = {pcpu: self._beside(vcpu, pcpu) for pcpu in set(pcpus.tolist())}
                more[row] += [there[pcpu] - here for pcpu in pcpus.tolist()]
        for column, (vcpu, pcpu) in enumerate(zip(back.tolist(), pcpus.tolist(), strict=True)):
            if vcpu != NOBODY and len(self._siblings[self._guest(vcpu)]) > 1:
                more[:, column] += self._beside(vcpu, source) - self._beside(vcpu, pcpu)
        return more

    def _alone(self, pcpu: int) -> bool:
        """Return whether no more than one vCPU lives on a pCPU's core."""
        threads = np.flatnonzero(self._core == self._core[pcpu]).tolist()
        return sum(len(self.residents[thread]) for thread in threads) <= 1

    def _beside(self, vcpu: int, pcpu: int) -> float:
        """Return what a vCPU's siblings on a pCPU cost it and them."""
        here = [
            min(float(self.mean[vcpu]), float(self.mean[other]))
            for other in self._siblings[self._guest(vcpu)]
            if other != vcpu and self.homes[other] == pcpu
        ]
        return SIBLINGS * sum(here)

    def _guest(self, vcpu: int) -> str:
        return self.estimate.vcpus[vcpu].key.uuid

    def _put(self, vcpu: int, pcpu: int) -> None:
        self._factor[vcpu] = self._factors(np.array([vcpu]), np.array([pcpu]))[0]
        weight = self.entitled[:, vcpu] * self._factor[vcpu]
        self._loads[:, self._core[pcpu], self._thread[pcpu]] += weight
        self.homes[vcpu] = pcpu
        self.residents[pcpu].add(vcpu)

    def _take(self, vcpu: int) -> None:
        pcpu = self.homes[vcpu]
        assert pcpu is not None
        weight = self.entitled[:, vcpu] * self._factor[vcpu]
        self._loads[:, self._core[pcpu], self._thread[pcpu]] -= weight
        self.residents[pcpu].remove(vcpu)

    def _spread(self, vcpus: Sequence[int], sign: float) -> None:
        """Count vCPUs without a home, all with the same mask, on all pCPUs they may run on."""
        shares = shared_over(self.estimate.vcpus[vcpus[0]], self.estimate)
        pcpus = np.array([self._number[cpu] for cpu in shares], dtype=np.intp)
        together = sign * self.entitled[:, vcpus].sum(axis=1)
        parts = np.array([*shares.values()])
        self._loads[:, self._core[pcpus], self._thread[pcpus]] += together[:, None] * parts[:, None]


def _siblings(estimate: CpuEstimate) -> dict[str, list[int]]:
    guests: dict[str, list[int]] = defaultdict(list)
    for place, vcpu in enumerate(estimate.vcpus):
        guests[vcpu.key.uuid].append(place)
    return guests


def _allowed(estimate: CpuEstimate, number: Mapping[int, int]) -> NDArray[np.bool_]:
    """Return which vCPU may run on which pCPU."""
    rows: dict[frozenset[int], NDArray[np.bool_]] = {}

    def row(allowed: frozenset[int]) -> NDArray[np.bool_]:
        if allowed not in rows:
            rows[allowed] = _mask(allowed, number)
        return rows[allowed]

    if not estimate.vcpus:
        return np.zeros((0, len(number)), dtype=np.bool_)
    return np.stack([row(vcpu.allowed) for vcpu in estimate.vcpus])


def _mask(allowed: Iterable[int], number: Mapping[int, int]) -> NDArray[np.bool_]:
    mask = np.zeros(len(number), dtype=np.bool_)
    mask[[number[cpu] for cpu in allowed if cpu in number]] = True
    return mask
