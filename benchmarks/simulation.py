"""How much faster than real time simulated hosts run: python benchmarks/simulation.py

Each line runs the production loop (same look, estimate, guard and policy as in production) on a
simulated host and divides simulated by processor time. Ratios above 1 are faster than real time.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from virtbalance.bench.baselines.cpu.lpt import Lpt
from virtbalance.control.deadline import UnlimitedDecider
from virtbalance.control.journal import MemoryJournal
from virtbalance.control.loop import Loop
from virtbalance.control.roles import make_role
from virtbalance.control.settings import CpuSettings, MemorySettings, loop_settings
from virtbalance.cpu.policies.balance import Balance
from virtbalance.memory.policies.fair import Fair
from virtbalance.model.topology import flat_topology
from virtbalance.simulation.build import host
from virtbalance.simulation.guest import SimMemory
from virtbalance.simulation.host import SimulatedHost
from virtbalance.simulation.machine import SimMachine
from virtbalance.simulation.want import MIB, Steps
from virtbalance.simulation.workload import Noise, loop


@dataclass(frozen=True, slots=True)
class Case:
    """One line of the table."""

    name: str
    make: Callable[[], SimulatedHost]
    settings: CpuSettings | MemorySettings
    policy: Any
    seconds: float
    wanted: float | None = None
    looks: int | None = None
    """A tick; ``None``: as in production."""


def small() -> SimulatedHost:
    """Return 8 guests on 4 pCPUs whose loads vary a little each second."""
    return host(4, 8, load=[Noise(duty, 0.03) for duty in (0.6, 0.22) * 4])


def steady() -> SimulatedHost:
    """Return 8 guests on 4 pCPUs whose loads never change."""
    return host(4, 8, load=[loop(duty) for duty in (0.6, 0.22) * 4])


def large() -> SimulatedHost:
    """Return 250 guests of 4 vCPUs on 128 pCPUs at 0.9 of their capacity, changing every 4 s."""
    return host(128, 250, vcpus=4, load=Noise(0.115, 0.05, step_s=4.0))


def memory(guests: int) -> Callable[[], SimulatedHost]:
    """Return a maker of guests whose wants go up and down in turn."""

    def make() -> SimulatedHost:
        wants = [
            Steps(((0, 600.0 * MIB), (60.0 + i % 50, 3000.0 * MIB)), repeat_s=120.0 + i % 50)
            for i in range(guests)
        ]
        memories = [SimMemory(4096 * MIB, 1024 * MIB, want=want) for want in wants]
        machine = SimMachine(flat_topology(1), memory_kib=guests * 2500 * MIB)
        return host(machine, guests, memory=memories)

    return make


CASES = (
    Case("8 on 4, 1 s, varying, lpt", small, CpuSettings(), Lpt, 600, 1000, looks=1),
    Case("8 on 4, 1 s, varying, balance", small, CpuSettings(), Balance, 600, 200),
    Case("8 on 4, 1 s, steady, balance", steady, CpuSettings(), Balance, 600, 200),
    Case("1000 on 128, 4 s, balance", large, CpuSettings(period_s=4.0), Balance, 120, 10),
    Case("8 balloons, 2 s, fair", memory(8), MemorySettings(), Fair, 600),
    Case("500 balloons, 2 s, fair", memory(500), MemorySettings(), Fair, 60),
)


def main() -> None:
    print(f"{'case':<32}{'simulated s':>12}{'processor s':>12}{'ratio':>8}{'wanted':>8}")
    for case in CASES:
        used_s = run(case)
        ratio = case.seconds / used_s
        wanted = f"{case.wanted:8.0f}" if case.wanted else ""
        print(f"{case.name:<32}{case.seconds:12.0f}{used_s:12.2f}{ratio:8.0f}{wanted}")


def run(case: Case) -> float:
    """Return the processor time a case takes."""
    simulated = case.make()
    config = case.policy.Config() if hasattr(case.policy, "Config") else None
    settings = loop_settings(case.settings, round(case.seconds / case.settings.period_s))
    settings = replace(settings, looks=case.looks or settings.looks)
    loop_of_case = Loop(
        simulated,
        make_role(case.settings, case.policy(), config),
        settings,
        clock=simulated.clock,
        decider=UnlimitedDecider(),
        journal=MemoryJournal(),
    )
    began_s = time.process_time()
    loop_of_case.run()
    return time.process_time() - began_s


if __name__ == "__main__":
    main()
