"""Following guests, on libvirt's test driver: events, metadata, marks and lists."""

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import libvirt
import pytest

from virtbalance.hypervisor import LibvirtHypervisor, connect
from virtbalance.hypervisor.settings_xml import NAMESPACE
from virtbalance.model.errors import HypervisorError
from virtbalance.model.guest import GuestSettings, RoleName
from virtbalance.model.snapshot import GuestSample, Scope

if TYPE_CHECKING:
    from virtbalance.model.tick import Event

pytestmark = pytest.mark.libvirt

URI = "test:///default"
DOMAIN = """
<domain type='test'><name>{name}</name><metadata>{metadata}</metadata>
<memory unit='KiB'>65536</memory><vcpu>2</vcpu><os><type>hvm</type></os></domain>"""
BROKEN = f'<vb:guest xmlns:vb="{NAMESPACE}" weight="heavy" exclude="cpu"/>'


class Host:
    def __init__(self, hypervisor: LibvirtHypervisor, connection: Any) -> None:
        self.hypervisor = hypervisor
        self.connection = connection
        self.heard: list[Event] = []

    def look(self) -> tuple[GuestSample, ...]:
        guests = self.hypervisor.sample(Scope.CPU, 5.0).guests
        self.heard += self.hypervisor.events()
        return guests

    def guest(self, name: str) -> GuestSample | None:
        return next((guest for guest in self.look() if guest.name == name), None)

    def settings(self, name: str) -> GuestSettings | None:
        guest = self.guest(name)
        return guest.settings if guest else None

    def kinds(self) -> list[str]:
        self.look()
        return [event.kind for event in self.heard]

    def set_metadata(self, name: str, xml: str | None) -> None:
        domain = self.connection.lookupByName(name)
        domain.setMetadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, xml, "vb", NAMESPACE, 0)


@pytest.fixture
def host() -> Iterator[Host]:
    hypervisor = connect(URI)
    connection = libvirt.open(URI)
    yield Host(hypervisor, connection)
    hypervisor.close()
    connection.close()


def eventually(holds: Callable[[], object], limit_s: float = 5.0) -> None:
    end_s = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < end_s
        time.sleep(0.01)


def test_guests_that_are_there_at_the_start_are_no_news(host: Host) -> None:
    assert [guest.name for guest in host.look()] == ["test"]
    assert host.heard == []


def test_wishes_are_read_from_the_start_and_followed(host: Host) -> None:
    assert host.settings("test") == GuestSettings()
    host.set_metadata("test", '<guest weight="2" minimum="512 MiB"/>')
    eventually(lambda: host.settings("test") == GuestSettings(2.0, 512 * 1024))
    host.set_metadata("test", None)
    eventually(lambda: host.settings("test") == GuestSettings())
    assert host.heard == []


def test_broken_wishes_are_told_once_by_name_and_fault(host: Host) -> None:
    host.connection.createXML(DOMAIN.format(name="careless", metadata=BROKEN))
    eventually(lambda: host.guest("careless"))
    for _ in range(3):
        assert host.settings("careless") == GuestSettings(exclude=frozenset({RoleName.CPU}))
    told = [event for event in host.heard if event.kind == "bad-metadata"]
    assert len(told) == 1
    assert "careless: weight='heavy'" in told[0].text


def test_life_of_a_guest_in_events(host: Host) -> None:
    domain = host.connection.createXML(DOMAIN.format(name="brief", metadata=""))
    eventually(lambda: host.guest("brief"))
    domain.suspend()
    eventually(lambda: "guest-paused" in host.kinds())
    domain.resume()
    eventually(lambda: "guest-resumed" in host.kinds())
    domain.destroy()
    eventually(lambda: "guest-stopped" in host.kinds())
    assert host.kinds() == ["guest-started", "guest-paused", "guest-resumed", "guest-stopped"]
    assert {event.uuid for event in host.heard} == {domain.UUIDString()}
    assert host.heard[-1].text == "brief: stopped (destroyed)"


def test_definitions_alone_are_no_news(host: Host) -> None:
    domain = host.connection.defineXML(DOMAIN.format(name="idle", metadata=""))
    domain.undefine()
    time.sleep(0.2)
    assert host.kinds() == []


def test_a_list_finds_what_no_event_told(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.look()
    guests = host.hypervisor._session._guests  # type: ignore[union-attr]
    for subscription in guests._link._subscriptions:
        guests._link.connection.domainEventDeregisterAny(subscription)
    guests._link._subscriptions.clear()
    host.connection.createXML(DOMAIN.format(name="secret", metadata=""))
    time.sleep(0.2)
    assert host.guest("secret") is None, "nobody told, and the list is not due"
    guests._next_list_s = 0.0
    eventually(lambda: host.guest("secret"))
    assert [(event.kind, event.text) for event in host.heard] == [
        ("guest-list-refreshed", "new: secret")
    ]
    host.connection.lookupByName("secret").destroy()
    guests._next_list_s = 0.0
    eventually(lambda: host.look() and host.heard[-1].text == "gone: secret")


def test_a_list_that_finds_nothing_new_is_silent(host: Host) -> None:
    for _ in range(3):
        host.hypervisor._session._guests._next_list_s = 0.0  # type: ignore[union-attr]
        host.look()
        time.sleep(0.05)
    assert host.kinds() == []


# The owner's wishes, written


@pytest.mark.parametrize("by", ["name", "uuid"])
def test_written_wishes_are_read_back_and_followed(host: Host, by: str) -> None:
    guest = host.look()[0]
    key = guest.name if by == "name" else guest.uuid
    wanted = GuestSettings(0.5, 1024, 2048, frozenset({RoleName.MEMORY}))
    host.hypervisor.write_settings(key, wanted)
    assert host.hypervisor.settings(key) == (wanted, ())
    eventually(lambda: host.settings("test") == wanted)
    host.hypervisor.write_settings(key, GuestSettings())
    assert host.hypervisor.settings(key) == (GuestSettings(), ())
    host.hypervisor.write_settings(key, GuestSettings())


def test_wishes_for_a_guest_that_is_off_are_kept_for_its_next_start(host: Host) -> None:
    domain = host.connection.defineXML(DOMAIN.format(name="off", metadata=""))
    host.hypervisor.write_settings("off", GuestSettings(weight=3.0))
    assert host.hypervisor.settings("off") == (GuestSettings(weight=3.0), ())
    domain.create()
    eventually(lambda: host.settings("off") == GuestSettings(weight=3.0))
    domain.destroy()
    domain.undefine()


@pytest.mark.parametrize("key", ["nobody", "00000000-0000-4000-8000-000000000000"])
def test_wishes_for_nobody(host: Host, key: str) -> None:
    with pytest.raises(HypervisorError, match="there is no guest"):
        host.hypervisor.write_settings(key, GuestSettings(weight=2.0))
    with pytest.raises(HypervisorError, match="there is no guest"):
        host.hypervisor.settings(key)
