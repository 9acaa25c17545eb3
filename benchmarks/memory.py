"""What a tick of the memory coordinator costs: the division among 500, and a look at 50 guests.

The first part divides a budget among 500 invented guests, in every tier, and lets the estimator,
the policy and the guard work on as many. The second starts real QEMU processes without an operating
system under the embedded driver (no /dev/kvm needed) and takes in turn, round after round, so that
the noise of the machine falls on all alike: libvirt's bulk call for balloon statistics, our look at
the same guests, which asks them side by side, and our own code alone, the calls answered at once
with what they answered before. Figures are medians.

    python -m benchmarks.memory [--guests 50] [--rounds 15] [--only division|look]
"""

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any
from unittest import mock

import libvirt

from benchmarks.bare_guests import bare_guests
from virtbalance.control.memory_role import MemoryRole, MemoryRoleSettings
from virtbalance.control.role import GuestFilter
from virtbalance.control.settings import MemorySettings
from virtbalance.hypervisor import LibvirtHypervisor, connect
from virtbalance.hypervisor.link import Link
from virtbalance.memory.allocation import Claim, Overload, allocate
from virtbalance.memory.policies.fair import Fair
from virtbalance.model.guest import GuestDefinition
from virtbalance.model.snapshot import GuestSample, HostMemory, MemorySample, Scope, Snapshot
from virtbalance.model.topology import flat_topology

MIB = 1024
DIVIDED = 500
DIVISION_GOAL_MS = 50.0
OWN_GOAL_RATIO = 0.05
FASTER_GOAL = 1.8
SETTLE_S = 10.0
OURS_A_ROUND = 5  # so short that one alone would be lost in the noise
DOMAIN = """
<domain type='qemu'><name>memory-{number}</name><memory unit='MiB'>32</memory>
<vcpu>1</vcpu><os><type arch='x86_64' machine='q35'>hvm</type></os>
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
    times = []
    for second in range(20):
        snapshot = invented_snapshot(second)
        began = time.perf_counter()
        think(role, snapshot)
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times)


def invented_snapshot(second: int) -> Snapshot:
    dice = random.Random(second)
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
            last_update_s=1_800_000_000 + second,
        )
        about = GuestDefinition(stats_period_s=1)
        guests.append(
            GuestSample(f"u{number:03}", f"g{number}", "1", definition=about, memory=memory)
        )
    host = HostMemory(1024 * 1024 * MIB, 200 * 1024 * MIB)
    return Snapshot(second * 10**9, 1.8e9, flat_topology(8), tuple(guests), memory=host)


# The look


def look(guests: int, rounds: int) -> bool:
    """Print what a look costs; return whether the goals are reached."""
    print(f"starting {guests} guests", file=sys.stderr)
    with bare_guests((DOMAIN.format(number=n) for n in range(guests)), SETTLE_S) as bare:
        hypervisor = connect(bare.uri)
        medians = measured(hypervisor, bare.connection, guests, rounds)
        hypervisor.close()
    return report(medians, guests)


BULK = "libvirt's bulk call"
SIDE_BY_SIDE = "our look, side by side"
OWN_LOOK = "our own code: the look"
OWN_THOUGHT = "our own code: estimate, decide, guard"


def measured(
    hypervisor: LibvirtHypervisor, connection: Any, guests: int, rounds: int
) -> dict[str, float]:
    """Return the median time of each contender in milliseconds."""
    told = {
        guest.uuid: answer(guest.memory) for guest in hypervisor.sample(Scope.MEMORY, 5.0).guests
    }
    assert len(told) == guests, "we look at all of them"
    role = memory_role()

    def our_look() -> Snapshot:
        return hypervisor.sample(Scope.MEMORY, 5.0)

    def answered_at_once() -> Snapshot:
        with mock.patch.object(Link, "memory_statistics", lambda _, uuid: told[uuid]):
            return our_look()

    times: dict[str, list[float]] = {
        name: [] for name in (BULK, SIDE_BY_SIDE, OWN_LOOK, OWN_THOUGHT)
    }
    for _ in range(rounds):
        times[BULK].append(
            time_ms(lambda: connection.getAllDomainStats(libvirt.VIR_DOMAIN_STATS_BALLOON, 0))
        )
        times[SIDE_BY_SIDE].append(time_ms(our_look))
        for _ in range(OURS_A_ROUND):
            times[OWN_LOOK].append(time_ms(answered_at_once))
            snapshot = answered_at_once()
            times[OWN_THOUGHT].append(time_ms(partial(think, role, snapshot)))
    assert not any(guest.memory is None or guest.memory.late for guest in our_look().guests)
    return {name: statistics.median(taken) for name, taken in times.items()}


def answer(memory: MemorySample | None) -> dict[str, int]:
    assert memory is not None
    return {"actual": memory.actual_kib, "rss": memory.rss_kib or 0, "last_update": 0}


def report(medians: dict[str, float], guests: int) -> bool:
    print(f"memory statistics of {guests} guests, median times")
    for name, milliseconds in medians.items():
        print(f"  {name:38} {milliseconds:9.2f} ms")
    faster = medians[BULK] / medians[SIDE_BY_SIDE]
    own = (medians[OWN_LOOK] + medians[OWN_THOUGHT]) / medians[BULK]
    print(f"faster than the bulk call: {faster:.2f} times (goal: {FASTER_GOAL})")
    print(f"our own code: {own:.1%} of the statistics calls' time (goal: {OWN_GOAL_RATIO:.0%})")
    return faster >= FASTER_GOAL and own < OWN_GOAL_RATIO


# Both


def memory_role() -> MemoryRole:
    settings = MemorySettings()
    parts = MemoryRoleSettings(settings.demand, settings.guard, GuestFilter(), 1)
    return MemoryRole(Fair(), Fair.Config(), parts)


def think(role: MemoryRole, snapshot: Snapshot) -> None:
    """Do what a tick does between looking and acting."""
    # A snapshot seen twice would be one of the same moment.
    snapshot = replace(snapshot, taken_ns=time.monotonic_ns())
    now_s = snapshot.taken_ns / 1e9
    role.look(snapshot)
    role.guard(role.decide(now_s), now_s)


def median_ms(work: Callable[[], object], repeats: int) -> float:
    return statistics.median(time_ms(work) for _ in range(repeats))


def time_ms(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


if __name__ == "__main__":
    sys.exit(main())
