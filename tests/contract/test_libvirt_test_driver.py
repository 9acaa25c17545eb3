"""The contract, held by libvirt's own test driver."""

from collections.abc import Iterator

import libvirt
import pytest

from tests.contract.hypervisor_contract import Can, HypervisorContract, World
from virtbalance.hypervisor import connect
from virtbalance.hypervisor.event_loop import ensure_event_loop

pytestmark = pytest.mark.libvirt

DOMAIN = """
<domain type='test'><name>{name}</name><memory unit='KiB'>65536</memory><vcpu>2</vcpu>
<os><type>hvm</type></os></domain>"""


class TestLibvirtTestDriver(HypervisorContract):
    @pytest.fixture
    def world(self) -> Iterator[World]:
        ensure_event_loop()
        connection = libvirt.open("test:///default")
        hypervisor = connect("test:///default")

        def domain(uuid: str) -> libvirt.virDomain:
            return connection.lookupByUUIDString(uuid)

        yield World(
            hypervisor,
            Can.HOST_CPUS
            | Can.BALLOON_MOVES
            | Can.START_AND_STOP
            | Can.PAUSE
            | Can.EVENTS
            | Can.CLOSES
            | Can.RECONNECT,
            start=lambda name: str(connection.createXML(DOMAIN.format(name=name)).UUIDString()),
            stop=lambda uuid: domain(uuid).destroy(),
            pause=lambda uuid: domain(uuid).suspend(),
            resume=lambda uuid: domain(uuid).resume(),
        )
        hypervisor.close()
        connection.close()
