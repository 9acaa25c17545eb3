"""Real guests for the lab's own tests: one embedded libvirt a session."""

import shutil
import time
from collections.abc import Callable, Iterator

import pytest

from virtbalance.lab import Guest, GuestSpec, Lab, MemoryReport


def _needed() -> None:
    pytest.importorskip("libvirt")
    for program in ("qemu-system-x86_64", "gcc"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


@pytest.fixture(scope="package")
def lab() -> Iterator[Lab]:
    _needed()
    with Lab.embedded(say=print) as opened:
        yield opened


@pytest.fixture(scope="package")
def worker(lab: Lab) -> Guest:
    """A guest of two vCPUs, its balloon at 320 of 512 MiB."""
    (guest,) = lab.start([GuestSpec(name="worker", vcpus=2, maximum_mib=512, current_mib=320)])
    await_(lambda: guest.report().memory.now.ballooned_kib >= 190 * 1024)
    return guest


@pytest.fixture
def idle_worker(worker: Guest) -> Iterator[Guest]:
    """The worker with nothing to do, before and after."""
    yield worker
    worker.command("cpu all off")
    worker.free()
    await_(lambda: at_rest(worker))


def await_(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to hold in time"
        time.sleep(0.1)


def at_rest(guest: Guest) -> bool:
    """Say whether all loads have ended: an order to end is obeyed after the step going on."""
    before = guest.report().iterations
    time.sleep(0.2)
    return guest.report().iterations == before


def ended(guest: Guest) -> MemoryReport:
    """Wait until a memory load has ended and return how."""
    await_(lambda: guest.report().memory.outcome != "growing")
    return guest.report().memory
