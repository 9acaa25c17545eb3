"""The contract, held by a guest with a kernel and a balloon driver of its own."""

from collections.abc import Iterator

import pytest

from tests.contract.hypervisor_contract import Can, HypervisorContract, World
from tests.contract.test_embedded import ABILITIES
from virtbalance.hypervisor import connect
from virtbalance.lab.lab import Lab
from virtbalance.lab.specs import GuestSpec
from virtbalance.model.snapshot import Scope

pytestmark = [pytest.mark.libvirt, pytest.mark.lab, pytest.mark.lab_full]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab.embedded(print) as lab:
        lab.start([GuestSpec(name="real", vcpus=2, maximum_mib=256)])
        yield lab


class TestRealGuest(HypervisorContract):
    @pytest.fixture
    def world(self, lab: Lab) -> Iterator[World]:
        hypervisor = connect(lab.uri)
        abilities = (ABILITIES | Can.BALLOON_MOVES) & ~(Can.START_AND_STOP | Can.PAUSE)
        yield World(hypervisor, abilities)
        hypervisor.close()

    def test_the_guest_tells_its_own_figures(self, world: World) -> None:
        def tells() -> bool:
            memory = world.guest(Scope.MEMORY).memory
            assert memory is not None
            return bool(memory.usable_kib and memory.available_kib and memory.last_update_s)

        world.eventually(tells)
        memory = world.guest(Scope.MEMORY).memory
        assert memory is not None
        assert memory.usable_kib is not None
        assert memory.available_kib is not None
        assert memory.usable_kib < memory.available_kib < memory.maximum_kib
        assert memory.major_faults is not None
        assert memory.swap_in_kib == 0
        assert abs((memory.last_update_s or 0) - world.sample().wall_s) < 5
