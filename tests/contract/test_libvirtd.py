"""The contract, held by a libvirtd on this machine and by one far away."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.hypervisor_contract import HypervisorContract, World
from tests.contract.test_embedded import ABILITIES
from tests.hypervisor.bare_guests import BareGuests
from tests.hypervisor.daemons import far_uri, private_libvirtd
from virtbalance.hypervisor import connect
from virtbalance.lab.private_libvirtd import PrivateLibvirtd

pytestmark = [pytest.mark.libvirt, pytest.mark.lab_full]


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[PrivateLibvirtd, BareGuests]]:
    with private_libvirtd() as (daemon, guests):
        guests.start("resident", uuid="00000000-0000-4000-8000-000000000001")
        yield daemon, guests


def world_of(uri: str, guests: BareGuests) -> Iterator[World]:
    hypervisor = connect(uri)
    lookup = guests.connection.lookupByUUIDString
    yield World(
        hypervisor,
        ABILITIES,
        start=lambda name: str(guests.start(name).UUIDString()),
        stop=lambda uuid: lookup(uuid).destroy(),
        pause=lambda uuid: lookup(uuid).suspend(),
        resume=lambda uuid: lookup(uuid).resume(),
    )
    hypervisor.close()


class TestLibvirtd(HypervisorContract):
    @pytest.fixture
    def world(self, running: tuple[PrivateLibvirtd, BareGuests]) -> Iterator[World]:
        yield from world_of(running[0].uri, running[1])


class TestFarLibvirtd(HypervisorContract):
    @pytest.fixture
    def world(self, running: tuple[PrivateLibvirtd, BareGuests], tmp_path: Path) -> Iterator[World]:
        yield from world_of(far_uri(running[0], tmp_path), running[1])
