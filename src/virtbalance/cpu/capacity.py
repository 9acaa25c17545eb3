"""What each pCPU has left for vCPUs: all of it, less the work that is not a vCPU's.

Other work on a pCPU = its busy time - the run time of vCPUs there. A vCPU that may run on one CPU
only is subtracted there; one that may run on several is subtracted over all of them, in
proportion to the busy time not yet explained. Emulator and I/O threads, the host's services and
time stolen by a hypervisor below are other work. It is smoothed before it is clipped: the busy
counters tick in steps of 10 ms, and clipping such noise first would invent work.

Some of it is at home on its pCPU (interrupts, pinned services), some floats (emulator threads), and
then it is everybody's burden wherever it was seen.

Example: two heavy vCPUs keep pCPU 0 busy for 0.98, 0.10 of that other work; pCPU 1 is busy for
0.84, 0.34 other: the emulators' threads have gone where there is room. At home are 0.10 of each,
0.24 float, 0.12 on each pCPU: both can give 0.78.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from virtbalance.cpu.settings import DemandSettings
from virtbalance.model.guest import VcpuKey
from virtbalance.model.snapshot import Snapshot, VcpuSample
from virtbalance.model.topology import Topology

CONTESTED_RATIO = 0.5
"""Other work competes for a pCPU, it does not own it: beside one busy thread a vCPU still gets
half, and most of what is not a vCPU's moves away from where vCPUs are. Counted as lost, it would
let a heap of vCPUs stay where they are because every other pCPU looks full."""
LEAST_SAMPLES = 0.5
"""Two readings nearer to each other tell the steps of the clock, not the work."""

Mask = frozenset[int] | None
"""CPUs a thread may run on; ``None``: unknown."""


@dataclass(frozen=True, slots=True)
class OtherWork:
    """Smoothed other work by pCPU, and the counters it continues from."""

    ratio: Mapping[int, float] = field(default_factory=dict)
    busy_ratio: Mapping[int, float] = field(default_factory=dict)
    """All work there is, smoothed alike."""
    taken_ns: int = 0
    busy_ns: Mapping[int, int] = field(default_factory=dict)
    """Steal included."""
    vcpus: Mapping[VcpuKey, VcpuSample] = field(default_factory=dict)

    def capacity(self, topology: Topology) -> dict[int, float]:
        """Return what every usable pCPU can give, in pCPUs of the fastest kind."""
        usable = sorted(topology.usable)
        home = self._at_home(usable)
        floating = sum(self._seen(cpu) - home[cpu] for cpu in usable) / max(1, len(usable))
        return {
            cpu: topology.by_id[cpu].speed_ratio * max(CONTESTED_RATIO, 1 - home[cpu] - floating)
            for cpu in usable
        }

    def _at_home(self, cpus: Sequence[int]) -> dict[int, float]:
        """Return the other work of each pCPU that would stay there, come what may.

        The kernel sends what may float to where there is room, also in answer to our pins. So what
        keeps a pCPU busier than the average is at home there, and what fills one that is less busy
        floats; of the rest one half is taken to do either.
        """
        busy = {cpu: self.busy_ratio.get(cpu, 0.0) for cpu in cpus}
        average = sum(busy.values()) / max(1, len(cpus))
        return {
            cpu: min(max(0.0, self._seen(cpu) / 2 + busy[cpu] - average), self._seen(cpu))
            for cpu in cpus
        }

    def _seen(self, cpu: int) -> float:
        return max(0.0, self.ratio.get(cpu, 0.0))


def measure_other_work(
    former: OtherWork, snapshot: Snapshot, settings: DemandSettings
) -> OtherWork:
    """Return the other work after one more sample.

    One that comes right after another is passed over: busy time ticks in steps of 10 ms.
    """
    if 0 <= snapshot.taken_ns - former.taken_ns < LEAST_SAMPLES * settings.sample_s * 1e9:
        return former
    busy_ns = {pcpu.id: pcpu.busy_ns + pcpu.steal_ns for pcpu in snapshot.pcpus}
    vcpus = {
        VcpuKey(guest.uuid, sample.index): sample
        for guest in snapshot.guests
        for sample in guest.vcpus
    }
    span_ns = snapshot.taken_ns - former.taken_ns
    ratio, busy_ratio = dict(former.ratio), dict(former.busy_ratio)
    if former.busy_ns and 0 < span_ns <= settings.gap_ns:
        spent_ns = _spent(former.busy_ns, busy_ns)
        keep = 0.5 ** (span_ns / 1e9 / settings.other_half_life_s)
        _smooth(busy_ratio, spent_ns, span_ns, keep)
        _smooth(ratio, _unexplained(former, spent_ns, vcpus), span_ns, keep)
    return OtherWork(ratio, busy_ratio, snapshot.taken_ns, busy_ns, vcpus)


def _smooth(
    ratios: dict[int, float], times_ns: Mapping[int, float], span_ns: int, keep: float
) -> None:
    for cpu, time_ns in times_ns.items():
        ratio = time_ns / span_ns
        ratios[cpu] = keep * ratios[cpu] + (1 - keep) * ratio if cpu in ratios else ratio


def _spent(before_ns: Mapping[int, int], now_ns: Mapping[int, int]) -> dict[int, float]:
    """Return the busy time between two samples, of pCPUs whose counters went on."""
    return {
        cpu: float(now - before_ns[cpu])
        for cpu, now in now_ns.items()
        if now >= before_ns.get(cpu, now + 1)
    }


def _unexplained(
    former: OtherWork, spent_ns: Mapping[int, float], vcpus: Mapping[VcpuKey, VcpuSample]
) -> dict[int, float]:
    """Return busy minus vCPU time by pCPU."""
    left = dict(spent_ns)
    by_masks: dict[tuple[Mask, Mask], float] = defaultdict(float)
    for key, sample in vcpus.items():
        before = former.vcpus.get(key)
        if before is not None and sample.run_ns >= before.run_ns:
            by_masks[before.affinity, sample.affinity] += sample.run_ns - before.run_ns
    groups: dict[frozenset[int], float] = defaultdict(float)
    everywhere = frozenset(left)
    for (old, new), run_ns in by_masks.items():
        # moved in between: it ran on the old CPUs, then on the new ones
        cpus = (everywhere if old is None else old) | (everywhere if new is None else new)
        groups[cpus & everywhere] += run_ns
    for cpus, run_ns in sorted(groups.items(), key=lambda group: (len(group[0]), sorted(group[0]))):
        _subtract(left, cpus, run_ns)
    return left


def _subtract(left: dict[int, float], cpus: frozenset[int], run_ns: float) -> None:
    total = sum(max(0.0, left[cpu]) for cpu in cpus)
    for cpu in cpus:
        share = max(0.0, left[cpu]) / total if total > 0 else 1 / len(cpus)
        left[cpu] -= run_ns * share
