"""Real guests for these tests: one embedded libvirt a session, guests started when first needed."""

from collections.abc import Callable, Iterator

import pytest

from virtbalance.hypervisor import LibvirtHypervisor, connect
from virtbalance.lab import Guest, GuestSpec, Lab
from virtbalance.lab.private_libvirtd import PrivateLibvirtd

pytest.importorskip("libvirt")


@pytest.fixture(scope="package")
def lab() -> Iterator[Lab]:
    with Lab.embedded(say=print) as opened:
        yield opened


@pytest.fixture(scope="package")
def four_guests(lab: Lab) -> Iterator[list[Guest]]:
    """Four small guests of one vCPU each, idle; the balloon at 256 of 768 MiB."""
    specs = [GuestSpec(name=f"g{i}", maximum_mib=768, current_mib=256) for i in range(4)]
    guests = lab.start(specs)
    yield guests
    for guest in guests:
        guest.stop()


@pytest.fixture(scope="module")
def daemon() -> Iterator[PrivateLibvirtd]:
    """A libvirtd of our own, for programs that run as processes."""
    with PrivateLibvirtd(say=print) as libvirtd:
        yield libvirtd


@pytest.fixture(scope="module")
def opened(daemon: PrivateLibvirtd) -> Iterator[Lab]:
    """The lab on that libvirtd."""
    with daemon.lab() as lab:
        yield lab


@pytest.fixture
def connected(lab: Lab) -> Iterator[Callable[[], LibvirtHypervisor]]:
    """Connections that are closed at the end of the test."""
    opened: list[LibvirtHypervisor] = []

    def another() -> LibvirtHypervisor:
        opened.append(connect(lab.uri))
        return opened[-1]

    yield another
    for hypervisor in opened:
        hypervisor.close()
