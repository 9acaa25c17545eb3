"""CPU loads and placements of real guests."""

import time
from collections.abc import Iterable, Sequence

from virtbalance.bench.lab_stage import QUICK_PAUSE_US
from virtbalance.control.hypervisor import Hypervisor
from virtbalance.lab import CountAndSleep, Guest, Off
from virtbalance.model.guest import VcpuKey
from virtbalance.model.plan import Pin, Reason
from virtbalance.model.snapshot import Scope
from virtbalance.model.tick import Status

LIGHT_RATIO = 0.23
MEDIUM_RATIO = 0.37
HEAVY_RATIO = 0.60
_FIRST_COUNT = 200_000
_MEASURE_S = 3.0


def place(
    hypervisor: Hypervisor, guests: Sequence[Guest], pcpus: Iterable[int | frozenset[int]]
) -> None:
    """Pin the guests' first vCPUs to these CPUs, or sets of CPUs."""
    hypervisor.sample(Scope.CPU, 2.0)
    why = Reason("test", "start of the case")
    pins = [
        Pin(VcpuKey(str(guest.uuid), 0), frozenset({pcpu} if isinstance(pcpu, int) else pcpu), why)
        for guest, pcpu in zip(guests, pcpus, strict=True)
    ]
    outcomes = hypervisor.apply(pins, 5.0)
    assert [outcome.status for outcome in outcomes] == [Status.DONE] * len(pins)


def load_all(guests: Sequence[Guest], count: int | None) -> None:
    """Let every guest count to ``count`` and sleep, for ever; ``None``: rest."""
    for guest in guests:
        guest.load_cpu(0, Off() if count is None else CountAndSleep(count, QUICK_PAUSE_US))


def calibrated_count(hypervisor: Hypervisor, guest: Guest, run_ratio: float) -> int:
    """Return the count at which the guest, alone on a pCPU, runs this part of the time.

    A loop of C seconds' counting and a sleep of S runs C / (C + S) of the time: one measurement
    at a known count gives S in counts.
    """
    count = _FIRST_COUNT
    for _ in range(2):
        guest.load_cpu(0, CountAndSleep(count, QUICK_PAUSE_US))
        time.sleep(0.5)
        measured = min(0.98, max(0.01, run_ratio_of(hypervisor, guest)))
        count = round(count * (1 - measured) / measured * run_ratio / (1 - run_ratio))
    guest.load_cpu(0, Off())
    return count


def run_ratio_of(hypervisor: Hypervisor, guest: Guest) -> float:
    """Measure how much of the time a guest's first vCPU runs."""
    uuid = str(guest.uuid)

    def look() -> tuple[int, int]:
        sample = next(g for g in hypervisor.sample(Scope.CPU, 2.0).guests if g.uuid == uuid)
        return sample.vcpus[0].run_ns, sample.vcpus[0].read_ns

    run_ns, read_ns = look()
    time.sleep(_MEASURE_S)
    later_run_ns, later_read_ns = look()
    return (later_run_ns - run_ns) / (later_read_ns - read_ns)


def iterations_per_s(guests: Sequence[Guest], seconds: float) -> float:
    """Measure what the guests get done together."""
    before = [guest.report() for guest in guests]
    time.sleep(seconds)
    after = [guest.report() for guest in guests]
    return sum(
        (b.iterations - a.iterations) * 1e9 / (b.monotonic_ns - a.monotonic_ns)
        for a, b in zip(before, after, strict=True)
    )
