"""What no policy can do through the vCPU scheduler: each protection, asked for the forbidden."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.control.programs import affinities, cpu_role, run
from virtbalance.control.role import GuestFilter
from virtbalance.model.cpu_estimate import CpuEstimate
from virtbalance.model.guest import GuestDefinition, GuestSettings, RoleName, VcpuKey
from virtbalance.model.plan import CpuPlan, Pin, Reason
from virtbalance.model.topology import Topology, flat_topology
from virtbalance.simulation.build import uuid
from virtbalance.simulation.guest import SimGuest, SimVcpu
from virtbalance.simulation.host import SimulatedHost
from virtbalance.simulation.machine import SimMachine
from virtbalance.simulation.workload import hog

TWO = flat_topology(2)
WHY = Reason("grab", "all to one")
ON_0 = SimVcpu(hog(), frozenset({0}))
PLAIN = SimGuest("g0", (ON_0, ON_0), uuid=uuid(0))


class Grab:
    """Wants every vCPU on pCPU 1."""

    name = "grab"

    def decide(
        self, state: Any, estimate: CpuEstimate, config: Any, now_s: float
    ) -> tuple[CpuPlan, Any]:
        return CpuPlan(tuple(Pin(v.key, frozenset({1}), WHY) for v in estimate.vcpus)), state


def homes_after_a_grab(
    tmp_path: Path, guest: SimGuest, topology: Topology = TWO, **role: Any
) -> list[set[int]]:
    simulated = SimulatedHost(SimMachine(topology), [guest])
    result = run(simulated, cpu_role(Grab(), **role), tmp_path, 4, restore_on_exit=False)
    assert len(result.ticks) == 4
    masks = affinities(simulated)
    return [set(masks[VcpuKey(uuid(0), index)]) for index in range(len(guest.vcpus))]


def test_without_a_reason_all_are_moved(tmp_path: Path) -> None:
    assert homes_after_a_grab(tmp_path, PLAIN) == [{1}, {1}]


def test_a_vcpu_pinned_in_the_persistent_definition_stays_the_other_goes(tmp_path: Path) -> None:
    owned = GuestDefinition(pinned_vcpus=frozenset({0}))
    assert homes_after_a_grab(tmp_path, replace(PLAIN, definition=owned)) == [{0}, {1}]


def test_a_cpuset_is_never_left(tmp_path: Path) -> None:
    confined = GuestDefinition(cpuset=frozenset({0}))
    assert homes_after_a_grab(tmp_path, replace(PLAIN, definition=confined)) == [{0}, {0}]


def test_a_realtime_vcpu_stays_the_other_goes(tmp_path: Path) -> None:
    vcpus = (replace(ON_0, realtime=True), ON_0)
    assert homes_after_a_grab(tmp_path, replace(PLAIN, vcpus=vcpus)) == [{0}, {1}]


@pytest.mark.parametrize("trait", ["online", "isolated"])
def test_a_pcpu_that_can_not_be_used_is_not(tmp_path: Path, trait: str) -> None:
    first, second = TWO.pcpus
    odd = replace(second, online=False) if trait == "online" else replace(second, isolated=True)
    assert homes_after_a_grab(tmp_path, PLAIN, Topology((first, odd))) == [{0}, {0}]


def test_excluded_by_name_or_by_the_guests_settings(tmp_path: Path) -> None:
    mine = GuestSettings(exclude=frozenset({RoleName.CPU}))
    assert homes_after_a_grab(tmp_path, replace(PLAIN, settings=mine)) == [{0}, {0}]
    memory_only = GuestSettings(exclude=frozenset({RoleName.MEMORY}))
    assert homes_after_a_grab(tmp_path, replace(PLAIN, settings=memory_only)) == [{1}, {1}]
    by_name = GuestFilter(exclude=("g*",))
    assert homes_after_a_grab(tmp_path, PLAIN, guests=by_name) == [{0}, {0}]
