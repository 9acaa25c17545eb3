"""What each pCPU has left for vCPUs: all of it, less the work that is not a vCPU's.

Other work on a pCPU = its busy time - the run time of vCPUs there. A vCPU that may run on one CPU
only is subtracted there; one that may run on several is subtracted over all of them, in
proportion to the busy time not yet explained. Emulator and I/O threads, the host's services and
time stolen by a hypervisor below are other work. It is smoothed before it is clipped: the busy
counters tick in steps of 10 ms, and clipping such noise first would invent work.
"""

from collections import defaultdict
from collections.abc import Mapping
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
    taken_ns: int = 0
    busy_ns: Mapping[int, int] = field(default_factory=dict)
    """Steal included."""
    vcpus: Mapping[VcpuKey, VcpuSample] = field(default_factory=dict)

    def capacity(self, topology: Topology) -> dict[int, float]:
        """Return what every usable pCPU can give, in pCPUs of the fastest kind.

        Of the other work seen on a pCPU one half is taken to be at home there, the other half to
        float: the kernel sends it to where there is room, also in answer to our pins. Counted
        where it happens to run, it would keep a vCPU from the emptier of two pCPUs.
        """
        usable = sorted(topology.usable)
        seen = {cpu: max(0.0, self.ratio.get(cpu, 0.0)) for cpu in usable}
        floating = sum(seen.values()) / max(1, len(usable))
        return {
            cpu: topology.by_id[cpu].speed_ratio
            * max(CONTESTED_RATIO, 1 - (seen[cpu] + floating) / 2)
            for cpu in usable
        }


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
    ratio = dict(former.ratio)
    if former.busy_ns and 0 < span_ns <= settings.gap_ns:
        new = _unexplained(former, busy_ns, vcpus, span_ns)
        keep = 0.5 ** (span_ns / 1e9 / settings.other_half_life_s)
        for cpu, value in new.items():
            ratio[cpu] = keep * ratio[cpu] + (1 - keep) * value if cpu in ratio else value
    return OtherWork(ratio, snapshot.taken_ns, busy_ns, vcpus)


def _unexplained(
    former: OtherWork,
    busy_ns: Mapping[int, int],
    vcpus: Mapping[VcpuKey, VcpuSample],
    span_ns: int,
) -> dict[int, float]:
    """Return busy minus vCPU time by pCPU, as a share of the time between two samples."""
    left = {
        cpu: float(now - former.busy_ns[cpu])
        for cpu, now in busy_ns.items()
        if now >= former.busy_ns.get(cpu, now + 1)
    }
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
    return {cpu: value / span_ns for cpu, value in left.items()}


def _subtract(left: dict[int, float], cpus: frozenset[int], run_ns: float) -> None:
    total = sum(max(0.0, left[cpu]) for cpu in cpus)
    for cpu in cpus:
        share = max(0.0, left[cpu]) / total if total > 0 else 1 / len(cpus)
        left[cpu] -= run_ns * share
