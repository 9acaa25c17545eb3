"""What a tick of the memory coordinator costs: the division among 500, and a look at 50 guests.

The first part divides a budget among 500 invented guests, in every tier, and lets the estimator,
the policy and the guard work on as many. The second starts real QEMU processes under the embedded
driver (no /dev/kvm needed), halted by their firmware: SeaBIOS looking for a disk takes 5 ms of CPU
a second, which 50 times would be most of what is measured. It takes in turn, round after round, so
that the noise of the machine falls on all alike: libvirt's bulk call for balloon statistics, our
look at the same guests, which asks them side by side, and our own code alone, the calls answered at
once with what guests with an operating system and a steady load would tell whose balloons go where
they are asked. Figures are medians.

How much faster the look can be is bounded by the CPUs: QEMU and libvirt need the same time for an
answer however they are asked, and the bulk call keeps more than one CPU busy already. That bound is
printed: the CPU time of the look, divided by the CPUs, against the bulk call's time. On two CPUs it
was 1.7 to 1.9; four bare threads that do nothing but call reached 1.6 in rounds in which the look
reached 1.6 as well. An answer took 1.5 ms of CPU, 1.2 of them in QEMU.

    python -m benchmarks.memory [--guests 50] [--rounds 15] [--only division|look]
"""

import argparse
import os
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, islice
from pathlib import Path
from unittest import mock

import libvirt

from benchmarks.bare_guests import BareGuests, bare_guests
from virtbalance.control.memory_role import MemoryRole, MemoryRoleSettings
from virtbalance.control.role import GuestFilter
from virtbalance.control.settings import MemorySettings
from virtbalance.hypervisor import LibvirtHypervisor, connect
from virtbalance.hypervisor.link import Link
from virtbalance.hypervisor.processes import find_process
from virtbalance.memory.allocation import Claim, Overload, allocate
from virtbalance.memory.policies.fair import Fair
from virtbalance.model.guest import GuestDefinition
from virtbalance.model.plan import Resize, Verdict
from virtbalance.model.snapshot import GuestSample, HostMemory, MemorySample, Scope, Snapshot
from virtbalance.model.tick import Outcome, Status
from virtbalance.model.topology import flat_topology

MIB = 1024
DIVIDED = 500
DIVISION_GOAL_MS = 50.0
OWN_GOAL_RATIO = 0.05
FASTER_GOAL = 1.8
SETTLE_S = 5.0
OURS_A_ROUND = 5  # so short that one alone would be lost in the noise
TICK_NS = 2_000_000_000
GUEST_MIB = 1024
USED_MIB = 200
ROM_BYTES = 65536
HALT = b"\xfa\xf4\xeb\xfd"  # cli; hlt; jmp back: what an idle guest without timers does
RESET_VECTOR = ROM_BYTES - 16
DOMAIN = """
<domain type='qemu'><name>{name}</name><memory unit='MiB'>{memory_mib}</memory>
<vcpu>1</vcpu><os><type arch='x86_64' machine='q35'>hvm</type>
<loader type='rom' readonly='yes'>{rom}</loader></os>
<features><acpi/></features><cpu mode='maximum'/>
<devices><controller type='usb' model='none'/>
<memballoon model='virtio'><stats period='1'/></memballoon></devices></domain>"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    reached = []
    if options.only != "look":
        reached.append(division())
    if options.only != "division":
        reached.append(look(options.guests, options.rounds))
    return 0 if all(reached) else 1


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--guests", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", choices=("division", "look"))
    return parser.parse_args(arguments)


# The division


def division() -> bool:
    """Print what the pure part costs for 500 guests; return whether the goal is reached."""
    claims = invented_claims()
    worst_ms = 0.0
    print(f"division among {DIVIDED} guests, median of 15")
    for tier, budget_kib in budgets(claims).items():
        for overload in Overload:
            took_ms = median_ms(partial(allocate, claims, budget_kib, 0, overload), 15)
            worst_ms = max(worst_ms, took_ms)
            print(f"  up to the {tier:5} {overload:15} {took_ms:8.2f} ms")
    print(f"  slowest {worst_ms:.1f} ms (goal: {DIVISION_GOAL_MS:.0f})")
    print(f"a tick for {DIVIDED} guests without looking: {whole_tick_ms():.1f} ms")
    return worst_ms < DIVISION_GOAL_MS


def invented_claims() -> list[Claim]:
    dice = random.Random(1)
    claims = []
    for number in range(DIVIDED):
        floor, *more = (dice.randrange(200, 4000) * MIB for _ in range(4))
        hard, soft, cache = floor + more[0], floor + sum(more[:2]), floor + sum(more)
        weight = dice.choice([0.5, 1.0, 1.0, 2.0])
        claims.append(Claim(f"g{number:03}", weight, floor, hard, soft, cache))
    return claims


def budgets(claims: Sequence[Claim]) -> dict[str, int]:
    """Return a budget that ends half-way in each tier."""
    sums = [
        sum(getattr(claim, f"{tier}_kib") for claim in claims)
        for tier in ("floor", "hard", "soft", "cache")
    ]
    names = ("hard", "soft", "cache")
    return {name: (sums[i] + sums[i + 1]) // 2 for i, name in enumerate(names)}


def whole_tick_ms() -> float:
    """Return what estimator, policy and guard take together, from samples of invented guests."""
    role = memory_role()
    snapshots = [invented_snapshot(tick) for tick in range(20)]
    return statistics.median(time_ms(partial(think, role, snapshot)) for snapshot in snapshots)


def invented_snapshot(tick: int) -> Snapshot:
    dice = random.Random(tick)
    guests = []
    for number in range(DIVIDED):
        actual = (1024 + number) * MIB
        usable = dice.randrange(100, 900) * MIB
        memory = MemorySample(
            maximum_kib=4096 * MIB,
            actual_kib=actual,
            available_kib=actual - 55 * MIB,
            unused_kib=usable // 2,
            usable_kib=usable,
            rss_kib=actual,
            last_update_s=1_800_000_000 + tick,
        )
        about = GuestDefinition(stats_period_s=1)
        guests.append(
            GuestSample(f"u{number:03}", f"g{number}", "1", definition=about, memory=memory)
        )
    host = HostMemory(1024 * 1024 * MIB, 200 * 1024 * MIB)
    return Snapshot(tick * TICK_NS, 1.8e9, flat_topology(8), tuple(guests), memory=host)


# The look


def look(guests: int, rounds: int) -> bool:
    """Print what a look costs; return whether the goals are reached."""
    print(f"starting {guests} guests", file=sys.stderr)
    names = [f"memory-{number}" for number in range(guests)]
    with tempfile.TemporaryDirectory() as folder:
        rom = Path(folder) / "halt.rom"
        rom.write_bytes(HALT.rjust(len(HALT) + RESET_VECTOR, b"\0").ljust(ROM_BYTES, b"\0"))
        xml = (DOMAIN.format(name=name, memory_mib=GUEST_MIB, rom=rom) for name in names)
        with bare_guests(xml, SETTLE_S) as bare:
            hypervisor = connect(bare.uri)
            costs = measured(hypervisor, bare, names, rounds)
            hypervisor.close()
    return report(costs, guests)


BULK = "libvirt's bulk call"
SIDE_BY_SIDE = "our look, side by side"
OWN_LOOK = "our own code: the look"
OWN_THOUGHT = "our own code: estimate, decide, guard"


@dataclass(frozen=True)
class Cost:
    """What one piece of work took, in milliseconds."""

    wall: float
    qemu: float = 0.0
    """CPU time of all guests' processes meanwhile."""
    own: float = 0.0
    """CPU time of this process, libvirt's threads in it included."""


def measured(
    hypervisor: LibvirtHypervisor, bare: BareGuests, names: Sequence[str], rounds: int
) -> dict[str, Cost]:
    """Return the median cost of each contender."""
    processes = [find_process([bare.root / "run/qemu"], name, Path("/proc")) for name in names]
    pids = [process.pid for process in processes if process]
    assert len(pids) == len(names), "each guest has a process"
    ticks = count()

    def our_look() -> Snapshot:
        return hypervisor.sample(Scope.MEMORY, 5.0)

    assert len(our_look().guests) == len(names), "we look at all of them"
    role, size_kib = memory_role(), GUEST_MIB * MIB
    costs: dict[str, list[Cost]] = {
        name: [] for name in (BULK, SIDE_BY_SIDE, OWN_LOOK, OWN_THOUGHT)
    }
    balloon = libvirt.VIR_DOMAIN_STATS_BALLOON
    for _ in range(rounds):
        costs[BULK].append(cost(lambda: bare.connection.getAllDomainStats(balloon, 0), pids))
        costs[SIDE_BY_SIDE].append(cost(our_look, pids))
        for tick in islice(ticks, OURS_A_ROUND):
            with answered_at_once(invented_statistics(tick, size_kib)):
                costs[OWN_LOOK].append(Cost(time_ms(our_look)))
                snapshot = replace(our_look(), taken_ns=tick * TICK_NS)
            began = time.perf_counter()
            verdict = think(role, snapshot)
            costs[OWN_THOUGHT].append(Cost((time.perf_counter() - began) * 1000))
            size_kib = followed(role, verdict, size_kib)
    assert not any(guest.memory is None or guest.memory.late for guest in our_look().guests)
    return {name: median_cost(taken) for name, taken in costs.items()}


@contextmanager
def answered_at_once(told: dict[str, int]) -> Iterator[None]:
    """Put what libvirt would answer in the place of the two calls a look makes for each guest."""

    # No Mock: its own bookkeeping would be most of what is measured.
    def statistics_of(_link: Link, _uuid: str) -> dict[str, int]:
        return told

    def no_job(_link: Link, _uuid: str) -> int:
        return int(libvirt.VIR_DOMAIN_JOB_NONE)

    with mock.patch.multiple(Link, memory_statistics=statistics_of, job_type=no_job):
        yield


def followed(role: MemoryRole, verdict: Verdict, size_kib: int) -> int:
    """Return the size all guests have at the next tick: their balloons go where they are asked."""
    role.record([Outcome(action, Status.DONE) for action in verdict.actions])
    targets_kib = (action.target_kib for action in verdict.actions if isinstance(action, Resize))
    return next(targets_kib, size_kib)


def invented_statistics(number: int, actual_kib: int) -> dict[str, int]:
    """Return what ``memoryStats`` tells of a guest with an operating system and a steady load."""
    usable_kib = actual_kib - USED_MIB * MIB + random.Random(number).randrange(8 * MIB)
    return {
        "actual": actual_kib,
        "swap_in": 0,
        "swap_out": 0,
        "major_fault": 400,
        "minor_fault": 90_000,
        "unused": usable_kib // 2,
        "available": actual_kib - 55 * MIB,
        "usable": usable_kib,
        "last_update": 1_800_000_000 + number,
        "disk_caches": usable_kib // 2,
        "hugetlb_pgalloc": 0,
        "hugetlb_pgfail": 0,
        "rss": actual_kib,
    }


def cost(work: Callable[[], object], pids: Sequence[int]) -> Cost:
    qemu_before, own_before = qemu_ms(pids), own_ms()
    wall = time_ms(work)
    own = own_ms() - own_before
    return Cost(wall, qemu_ms(pids) - qemu_before, own)


def qemu_ms(pids: Sequence[int]) -> float:
    """Return the CPU time of all threads of some processes."""
    files = (file for pid in pids for file in Path(f"/proc/{pid}/task").glob("*/schedstat"))
    return sum(int(file.read_text().split()[0]) for file in files) / 1e6


def own_ms() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return (used.ru_utime + used.ru_stime) * 1000


def median_cost(costs: Sequence[Cost]) -> Cost:
    return Cost(
        statistics.median(cost.wall for cost in costs),
        statistics.median(cost.qemu for cost in costs),
        statistics.median(cost.own for cost in costs),
    )


def report(costs: dict[str, Cost], guests: int) -> bool:
    print(f"memory statistics of {guests} guests, median times")
    for name, one in costs.items():
        print(f"  {name:38} {one.wall:9.2f} ms")
    bulk, ours = costs[BULK], costs[SIDE_BY_SIDE]
    cpus = len(os.sched_getaffinity(0))
    least_ms = (ours.qemu + ours.own) / cpus
    print(f"CPU time of the look: {ours.qemu:.1f} ms of QEMU, {ours.own:.1f} ms of this process")
    print(f"so {cpus} CPUs can't be faster than {bulk.wall / least_ms:.2f} times")
    faster = bulk.wall / ours.wall
    own = (costs[OWN_LOOK].wall + costs[OWN_THOUGHT].wall) / bulk.wall
    print(f"faster than the bulk call: {faster:.2f} times (goal: {FASTER_GOAL})")
    print(f"our own code: {own:.1%} of the statistics calls' time (goal: {OWN_GOAL_RATIO:.0%})")
    return faster >= FASTER_GOAL and own < OWN_GOAL_RATIO


# Both


def memory_role() -> MemoryRole:
    settings = MemorySettings()
    parts = MemoryRoleSettings(settings.demand, settings.guard, GuestFilter(), 1)
    return MemoryRole(Fair(), Fair.Config(), parts)


def think(role: MemoryRole, snapshot: Snapshot) -> Verdict:
    """Do what a tick does between looking and acting."""
    now_s = snapshot.taken_ns / 1e9
    role.look(snapshot)
    return role.guard(role.decide(now_s), now_s)


def median_ms(work: Callable[[], object], repeats: int) -> float:
    return statistics.median(time_ms(work) for _ in range(repeats))


def time_ms(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


if __name__ == "__main__":
    sys.exit(main())
