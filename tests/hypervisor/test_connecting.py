"""Opening connections: what is said when it does not work, and who is at the other end."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import libvirt
import pytest

from tests.hypervisor.trees import write_tree
from virtbalance.hypervisor import LibvirtHypervisor, connect
from virtbalance.hypervisor.connection import Connection, host_id, local_host
from virtbalance.model.errors import HypervisorError, HypervisorLostError
from virtbalance.model.guest import VcpuKey
from virtbalance.model.plan import Pin, Reason
from virtbalance.model.snapshot import Scope
from virtbalance.model.tick import Status

if TYPE_CHECKING:
    from virtbalance.control.hypervisor import Hypervisor

pytestmark = pytest.mark.libvirt

TEST_URI = "test:///default"


def connection(uri: str, driver: str = "qemu") -> Connection:
    """A connection that is not open, for questions about its URI."""
    nothing: Any = None
    return Connection(uri, driver, nothing, nothing, nothing, (True,), None, nothing)


def test_it_fills_the_protocol() -> None:
    hypervisor: Hypervisor = connect(TEST_URI)
    assert isinstance(hypervisor, LibvirtHypervisor)
    hypervisor.close()


def test_the_default_uri_is_libvirts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIBVIRT_DEFAULT_URI", TEST_URI)
    hypervisor = connect()
    assert hypervisor.host_id.endswith("-test-default")
    hypervisor.close()


@pytest.mark.parametrize(
    ("uri", "error"),
    [
        ("qemu:///system?socket=/nonexistent/socket", HypervisorLostError),
        ("qemu+tcp://127.0.0.1:1/system", HypervisorLostError),
        ("qemu+unix:///system?mode=nonsense", HypervisorError),
        (":::", HypervisorError),
    ],
)
def test_a_connection_that_can_not_be_made_is_one_line(
    uri: str, error: type[HypervisorError]
) -> None:
    with pytest.raises(error) as raised:
        connect(uri)
    assert uri in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_socket_where_nobody_answers_is_not_awaited(tmp_path: Path) -> None:
    path = tmp_path / "silent"
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen()
        began_s = time.monotonic()
        with pytest.raises(HypervisorLostError, match=r"did not answer within 0\.5 s"):
            connect(f"qemu:///system?socket={path}", timeout_s=0.5)
        assert time.monotonic() - began_s < 2.0


def test_a_silent_socket_does_not_hold_up_the_end_of_the_program(tmp_path: Path) -> None:
    path = tmp_path / "silent"
    program = (
        "from virtbalance.hypervisor import connect\n"
        f"connect('qemu:///system?socket={path}', timeout_s=0.3)"
    )
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen()
        ended = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, timeout=20, check=False
        )
    assert b"HypervisorLostError" in ended.stderr


def test_a_read_only_connection_looks_and_refuses_to_act() -> None:
    hypervisor = connect(TEST_URI, read_only=True)
    assert hypervisor.read_only
    guest = hypervisor.sample(Scope.CPU, 5.0).guests[0]
    action = Pin(VcpuKey(guest.uuid, 0), frozenset({0}), Reason("test", "test"))
    (outcome,) = hypervisor.apply([action], 5.0)
    assert (outcome.status, outcome.text) == (Status.REFUSED, "the connection is read-only")
    hypervisor.close()


@pytest.mark.parametrize(
    ("uri", "folders"),
    [
        ("qemu:///system", ["run/libvirt/qemu"]),
        ("qemu+unix:///system", ["run/libvirt/qemu"]),
    ],
)
def test_where_local_guests_have_their_pid_files(
    tmp_path: Path, uri: str, folders: list[str]
) -> None:
    local = local_host(connection(uri), tmp_path)
    assert local is not None
    assert local.pid_folders == tuple(tmp_path / folder for folder in folders)
    assert local.proc == tmp_path / "proc"


def test_pid_files_of_the_embedded_and_the_session_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    embedded = local_host(connection("qemu:///embed?root=/tmp/x"), tmp_path)
    session = local_host(connection("qemu:///session"), tmp_path)
    assert embedded is not None
    assert session is not None
    assert embedded.pid_folders == (Path("/tmp/x/run/qemu"),)
    assert session.pid_folders[0] == Path("/run/user/1000/libvirt/qemu/run")


@pytest.mark.parametrize(
    ("uri", "driver"),
    [
        ("qemu+ssh://root@host/system", "qemu"),
        ("qemu://host/system", "qemu"),
        ("test:///default", "test"),
        ("lxc:///system", "lxc"),
    ],
)
def test_whose_guests_have_no_process_here(tmp_path: Path, uri: str, driver: str) -> None:
    assert local_host(connection(uri, driver), tmp_path) is None


def test_host_ids(tmp_path: Path) -> None:
    write_tree(tmp_path, {"etc/machine-id": "3d1219c7c4c5404aaa1f6d2a48adfda4\n"})
    machine = "3d1219c7c4c5404aaa1f6d2a48adfda4"
    assert host_id(connection("qemu:///system"), tmp_path) == f"{machine}-qemu-system"
    embedded = {host_id(connection(f"qemu:///embed?root=/{x}"), tmp_path) for x in "ab"}
    assert len(embedded) == 2
    assert all(name.startswith(f"{machine}-qemu-embed-") for name in embedded)


def test_domain_events_are_only_heard_while_connected() -> None:
    hypervisor = connect(TEST_URI)
    hypervisor.close()
    other = libvirt.open(TEST_URI)
    other.lookupByName("test").suspend()
    time.sleep(0.2)
    assert hypervisor.events() == ()
    other.lookupByName("test").resume()
    other.close()


def test_nothing_is_left_open(tmp_path: Path) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  iterdir keeps one open itself

    connect(TEST_URI).close()
    before = descriptors()
    for _ in range(5):
        hypervisor = connect(TEST_URI)
        hypervisor.sample(Scope.CPU, 5.0)
        hypervisor.close()
    assert descriptors() <= before


DENIED = """
import os, sys
from virtbalance.hypervisor import connect
from virtbalance.hypervisor.event_loop import ensure_event_loop
ensure_event_loop()
os.setgid(65534)
os.setuid(65534)
try:
    connect(sys.argv[1])
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="must become somebody else")
def test_a_socket_that_may_not_be_used_is_denied(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    for folder in (tmp_path, *list(tmp_path.parents)[:2]):
        folder.chmod(0o711)
    with socket.socket(socket.AF_UNIX) as closed:
        closed.bind(str(path))
        closed.listen()
        path.chmod(0o600)
        said = subprocess.run(
            [sys.executable, "-c", DENIED, f"qemu:///system?socket={path}"],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        ).stdout
    assert said.startswith("HypervisorDeniedError can't connect to qemu:///system"), said
    assert "Permission denied" in said


def test_the_usual_weight_is_that_of_the_hosts_control_groups(tmp_path: Path) -> None:
    def usual() -> int:
        local = local_host(connection("qemu:///system"), tmp_path)
        assert local is not None
        return local.usual_shares

    assert usual() == 1024
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/cgroup.controllers").touch()
    assert usual() == 100
