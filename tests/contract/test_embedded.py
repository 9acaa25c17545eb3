"""The contract, held by real QEMU processes under libvirt's embedded driver."""

import time
from collections.abc import Iterator

import pytest

from tests.contract.hypervisor_contract import Can, HypervisorContract, World
from tests.hypervisor.bare_guests import BareGuests, embedded_guests
from virtbalance.hypervisor import connect

pytestmark = [pytest.mark.libvirt, pytest.mark.lab]

ABILITIES = (
    Can.RUN_TIMES
    | Can.WAIT_TIMES
    | Can.HOST_CPUS
    | Can.HOST_MEMORY
    | Can.START_AND_STOP
    | Can.PAUSE
    | Can.EVENTS
    | Can.CLOSES
    | Can.RECONNECT
)


@pytest.fixture(scope="module")
def guests() -> Iterator[BareGuests]:
    guests = embedded_guests()
    # The first UUID in order, so that it is the first of every sample.
    guests.start("resident", uuid="00000000-0000-4000-8000-000000000001")
    yield guests
    guests.close()


class TestEmbedded(HypervisorContract):
    @pytest.fixture
    def world(self, guests: BareGuests) -> Iterator[World]:
        hypervisor = connect(guests.uri)
        lookup = guests.connection.lookupByUUIDString
        yield World(
            hypervisor,
            ABILITIES,
            start=lambda name: str(guests.start(name).UUIDString()),
            stop=lambda uuid: lookup(uuid).destroy(),
            pause=lambda uuid: lookup(uuid).suspend(),
            resume=lambda uuid: lookup(uuid).resume(),
            let_pass=time.sleep,
        )
        hypervisor.close()
