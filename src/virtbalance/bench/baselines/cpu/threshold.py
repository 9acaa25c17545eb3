"""``threshold``: the original program's rule, with its faults.

At first and whenever the number of guests changes, vCPU j of every guest goes to the j-th pCPU,
counted anew for each guest. Otherwise a pCPU's use is the *average* of the use of its vCPUs, and if
any pCPU is at half or more, all vCPUs of the busiest and of the freest change places.

So it can't balance, because a swap only renames pCPUs; it reads a crowded pCPU as idle, because n
vCPUs that compete read 1/n each; and it moves a lone busy vCPU every period for ever.
"""

from dataclasses import dataclass
from statistics import fmean

from virtbalance.bench.baselines.cpu.placement import Placement, current, movable, pcpus, plan, uses
from virtbalance.model.cpu_estimate import CpuEstimate
from virtbalance.model.plan import CpuPlan

_BUSY_RATIO = 0.5


class Threshold:
    """Swaps everything on the busiest pCPU with everything on the freest."""

    name = "threshold"

    @dataclass(frozen=True, slots=True)
    class Config:
        """How it begins."""

        count_on: bool = False
        """Go on counting from guest to guest, where the original puts all guests of one vCPU on
        the first pCPU: shows what its swaps alone do to an even start."""

    def decide(
        self, state: int | None, estimate: CpuEstimate, config: Config | None, now_s: float
    ) -> tuple[CpuPlan, int]:
        """Map anew if the number of guests changed, otherwise swap if any pCPU is busy."""
        del now_s
        guests = len({vcpu.key.uuid for vcpu in estimate.vcpus})
        if guests == state:
            placement = _swapped(estimate)
        else:
            placement = _mapped(estimate, count_on=config is not None and config.count_on)
        return plan(estimate, placement, self.name), guests


def _mapped(estimate: CpuEstimate, *, count_on: bool) -> Placement:
    cpus = pcpus(estimate)
    placement: Placement = {}
    counted: dict[str, int] = {}
    for vcpu in movable(estimate):
        counter = "" if count_on else vcpu.key.uuid
        number = counted.get(counter, 0)
        counted[counter] = number + 1
        placement[vcpu.key] = cpus[number % len(cpus)]
    return placement


def _swapped(estimate: CpuEstimate) -> Placement:
    placement, used = current(estimate), uses(estimate)
    average = {}
    for cpu in pcpus(estimate):
        here = [used[key] for key, home in placement.items() if home == cpu]
        average[cpu] = fmean(here) if here else 0.0
    busiest = max(average, key=lambda cpu: (average[cpu], -cpu))
    freest = min(average, key=lambda cpu: (average[cpu], cpu))
    if average[busiest] < _BUSY_RATIO:
        return placement
    swap = {busiest: freest, freest: busiest}
    return {key: swap.get(cpu, cpu) for key, cpu in placement.items()}
