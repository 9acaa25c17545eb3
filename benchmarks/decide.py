"""How long one look at a large host and one decision about it take.

The look is taken at stand-ins for guests (see ``stand_ins``), in turn with a bare loop of the same
reads, so that the noise of the machine falls on both alike. The decision is made by the production
role, policy and guard on a simulated host of the same size, whose guests' loads change.

    python -m benchmarks.decide [--guests 250] [--vcpus 4] [--pcpus 128] [--policy balance]
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from benchmarks.stand_ins import stand_in_host
from virtbalance.control.config import policy_config
from virtbalance.control.policies import load_policy_class, make_policy
from virtbalance.control.roles import make_role
from virtbalance.control.settings import CpuSettings, loop_settings
from virtbalance.model.guest import RoleName
from virtbalance.model.snapshot import Scope
from virtbalance.model.topology import NumaNode, Pcpu, Topology
from virtbalance.simulation.build import host
from virtbalance.simulation.workload import Noise

SAMPLE_GOAL_MS = 8.0
SAMPLE_GOAL_RATIO = 3.0
DECISION_GOAL_MS = 50.0
PERIOD_S = 4.0
CACHE = 16
"""pCPUs under one last-level cache."""
LOAD = 0.9
"""Of what the host can give."""
BARE, SAMPLE = "bare loop of the same preads", "sample"
LOOK, DECIDE, GUARD = "estimate", "decide", "guard"


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    times = sampling_ms(options) | deciding_ms(options)
    return report(times, options)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--guests", type=int, default=250)
    parser.add_argument("--vcpus", type=int, default=4, help="of each guest")
    parser.add_argument("--pcpus", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=200, help="looks")
    parser.add_argument("--ticks", type=int, default=15, help="decisions")
    parser.add_argument("--policy", default="balance", metavar="NAME|FILE.py:CLASS")
    return parser.parse_args(arguments)


def sampling_ms(options: argparse.Namespace) -> dict[str, list[float]]:
    """Return the times of looks and of bare loops."""
    times: dict[str, list[float]] = {BARE: [], SAMPLE: []}
    with (
        tempfile.TemporaryDirectory() as folder,
        stand_in_host(options.guests, options.vcpus, options.pcpus, Path(folder)) as stand_ins,
    ):
        paths = [f"/proc/{pid}/task/{thread}/schedstat" for pid, thread in stand_ins.threads]
        descriptors = [os.open(path, os.O_RDONLY) for path in paths]
        contenders: dict[str, Callable[[], object]] = {
            BARE: lambda: [os.pread(descriptor, 64, 0) for descriptor in descriptors],
            SAMPLE: lambda: stand_ins.session.sample(Scope.CPU, time.monotonic() + 1.0),
        }
        seen = stand_ins.session.sample(Scope.CPU, time.monotonic() + 1.0)
        assert sum(len(guest.vcpus) for guest in seen.guests) == len(descriptors)
        for _ in range(options.rounds):
            for name, look in contenders.items():
                times[name].append(time_ms(look))
        for descriptor in descriptors:
            os.close(descriptor)
    return times


def deciding_ms(options: argparse.Namespace) -> dict[str, list[float]]:
    """Return the times of the steps of each tick, once the estimator has a full history."""
    settings = CpuSettings(period_s=PERIOD_S, policy=options.policy)
    policy_class = load_policy_class(RoleName.CPU, options.policy)
    config = policy_config(policy_class, {}, "benchmark")
    role = make_role(settings, make_policy(policy_class), config)
    duty = LOAD * options.pcpus / (options.guests * options.vcpus)
    simulated = host(
        topology_of(options.pcpus),
        options.guests,
        vcpus=options.vcpus,
        load=Noise(duty, duty / 2, step_s=PERIOD_S),
    )
    looks = loop_settings(settings, ticks=None).looks
    warm_up = round(settings.demand.history_slots * settings.demand.slot_s / PERIOD_S) + 1
    times: dict[str, list[float]] = {LOOK: [], DECIDE: [], GUARD: []}
    for tick in range(warm_up + options.ticks):
        for _ in range(looks):
            simulated.advance(PERIOD_S / looks)
            snapshot = simulated.sample(Scope.CPU, 1.0)
            look_ms = time_ms(partial(role.look, snapshot))
        now_s = snapshot.taken_ns / 1e9
        began = time.perf_counter()
        plan = role.decide(now_s)
        decided = time.perf_counter()
        verdict = role.guard(plan, now_s)
        guarded = time.perf_counter()
        role.undo(verdict.actions)
        role.record(simulated.apply(verdict.actions, 1.0))
        if tick >= warm_up:
            times[LOOK].append(look_ms)
            times[DECIDE].append((decided - began) * 1000)
            times[GUARD].append((guarded - decided) * 1000)
    return times


def topology_of(pcpus: int) -> Topology:
    """Return two nodes with several caches each."""
    return Topology(
        tuple(
            Pcpu(cpu, core=cpu, llc=cpu // CACHE * CACHE, node=2 * cpu // pcpus)
            for cpu in range(pcpus)
        ),
        nodes=(NumaNode(0, 2**28), NumaNode(1, 2**28)),
    )


def time_ms(what: Callable[[], object]) -> float:
    began = time.perf_counter()
    what()
    return (time.perf_counter() - began) * 1000


def report(times: dict[str, list[float]], options: argparse.Namespace) -> int:
    """Print the table; return 1 if a goal is missed."""
    print(f"{options.guests * options.vcpus} vCPUs on {options.pcpus} pCPUs, {options.policy}")
    print(f"{'':32}{'median ms':>10}{'worst ms':>10}")
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    for name, taken in times.items():
        print(f"{name:32}{medians[name]:10.2f}{max(taken):10.2f}")
    ratio = medians[SAMPLE] / medians[BARE]
    decision_ms = medians[DECIDE] + medians[GUARD]
    print(f"sample / bare loop: {ratio:.2f} (goal: {SAMPLE_GOAL_RATIO:g})")
    print(f"sample: {medians[SAMPLE]:.2f} ms (goal: {SAMPLE_GOAL_MS:g})")
    print(f"decision with guard: {decision_ms:.1f} ms (goal: {DECISION_GOAL_MS:g})")
    met = (
        ratio <= SAMPLE_GOAL_RATIO
        and medians[SAMPLE] <= SAMPLE_GOAL_MS
        and decision_ms <= DECISION_GOAL_MS
    )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
