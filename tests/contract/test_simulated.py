"""The contract, held by the simulated host."""

from dataclasses import replace

import pytest

from tests.contract.hypervisor_contract import Can, HypervisorContract, World
from virtbalance.simulation.build import guest, host
from virtbalance.simulation.guest import SimMemory


class TestSimulated(HypervisorContract):
    @pytest.fixture
    def world(self) -> World:
        simulated = host(4, 2, vcpus=2, memory=SimMemory())
        described = guest(99, vcpus=2, memory=SimMemory())
        abilities = ~Can.NOTHING & ~(Can.RECONNECT | Can.CLOSES)
        return World(
            simulated,
            abilities,
            start=lambda name: simulated.start(replace(described, name=name)),
            stop=simulated.vanish,
            pause=simulated.pause,
            resume=simulated.resume,
            let_pass=simulated.advance,
        )
