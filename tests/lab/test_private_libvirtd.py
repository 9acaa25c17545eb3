"""A libvirtd of our own: killed and restarted, its guests go on; a killed lab's are ended."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.conftest import await_
from virtbalance.lab import GuestSpec, Hog, Lab, LabError
from virtbalance.lab.processes import command_line

pytestmark = pytest.mark.lab_full

libvirt = pytest.importorskip("libvirt")
if os.geteuid():
    pytest.skip("a private libvirtd needs root", allow_module_level=True)

from virtbalance.lab.private_libvirtd import PrivateLibvirtd  # noqa: E402


@pytest.fixture(scope="module")
def daemon() -> Iterator[PrivateLibvirtd]:
    with PrivateLibvirtd(say=print) as running:
        yield running


def names(daemon: PrivateLibvirtd) -> list[str]:
    with contextlib.closing(libvirt.open(daemon.uri)) as connection:
        return sorted(domain.name() for domain in connection.listAllDomains())


def test_guests_go_on_while_it_is_killed_and_restarted(daemon: PrivateLibvirtd) -> None:
    with daemon.lab() as lab:
        pinned, lasting = lab.start(
            [
                GuestSpec(name="pinned", pins=(frozenset({0}),), maximum_mib=256),
                GuestSpec(name="lasting", persistent=True, maximum_mib=256),
            ]
        )
        pid = pinned.pid
        pinned.load_cpu(0, Hog())
        daemon.kill()
        with pytest.raises(LabError, match="does not run"):
            _ = daemon.pid
        before = pinned.report().iterations
        time.sleep(0.5)
        assert pinned.report().iterations > before
        daemon.start()
        assert names(daemon) == ["lasting", "pinned"]
        assert pinned.domain.vcpuPinInfo()[0][0]
        assert not any(pinned.domain.vcpuPinInfo()[0][1:])
        daemon.stop()
        daemon.start()
        assert pinned.pid == pid
        pinned.stop()
        assert names(daemon) == ["lasting"]
        assert lasting.report().cpus[0].load == "off"
    assert names(daemon) == []


def test_the_next_lab_on_it_ends_what_a_killed_one_left(daemon: PrivateLibvirtd) -> None:
    code = (
        "import os, sys; from pathlib import Path; from virtbalance.lab import GuestSpec, Lab;"
        "run = Path(sys.argv[2]);"
        "lab = Lab.on(sys.argv[1], print, folder=run / 'g', pids=run / 'run' / 'qemu');"
        "lab.start([GuestSpec(name='left', maximum_mib=192)]); os.kill(os.getpid(), 9)"
    )
    run = daemon.uri.partition("socket=")[2].removesuffix("/run/libvirt-sock")
    killed = subprocess.run([sys.executable, "-c", code, daemon.uri, run], check=False)
    assert killed.returncode == -9
    assert names(daemon) == ["left"]
    said: list[str] = []
    with Lab.on(daemon.uri, said.append, folder=Path(run) / "g"):
        assert names(daemon) == []
    assert "lab: ended guest left, which a killed lab left behind" in said


def test_everything_is_gone_at_its_end() -> None:
    with PrivateLibvirtd(say=print) as daemon:
        lab = daemon.lab()
        (guest,) = lab.start([GuestSpec(name="still-there", maximum_mib=192)])
        pid, daemon_pid = guest.pid, daemon.pid
        lab.keep()
    await_(lambda: not command_line(pid))
    assert not command_line(daemon_pid)
