"""A host with many guests that are none: sleeping processes whose threads are called like vCPUs.

Everything we do with a guest between two changes is done with its process and its threads, so a
host of 1,000 vCPUs can be had on a small machine. libvirt is played by a ``Link`` that knows the
guests by heart; /proc, /sys and libvirt's pid files are a tree of links to the processes.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import libvirt

from virtbalance.hypervisor.connection import Connection
from virtbalance.hypervisor.link import ActiveDomain, Link, VcpuInfo
from virtbalance.hypervisor.link_pool import LinkPool
from virtbalance.hypervisor.processes import find_vcpu_threads
from virtbalance.hypervisor.schedstat import read_run_ns
from virtbalance.hypervisor.session import Session

CACHE = 16
"""pCPUs under one last-level cache."""
XML = "<domain><memory>1048576</memory><vcpu>{vcpus}</vcpu></domain>"
PROCESSES = """
import os, sys, threading
guests, vcpus = map(int, sys.argv[1:])
def name(vcpu):
    with open(f"/proc/self/task/{threading.get_native_id()}/comm", "w") as comm:
        comm.write(f"CPU {vcpu}/TCG")
def work(vcpu, named):
    name(vcpu)
    named.wait()
    threading.Event().wait()
for _ in range(guests):
    if os.fork() == 0:
        named = threading.Barrier(vcpus + 1)
        for vcpu in range(vcpus):
            threading.Thread(target=work, args=(vcpu, named), daemon=True).start()
        named.wait()
        os.write(1, f"{os.getpid()}\\n".encode())
        sys.stdin.read()
        os._exit(0)
sys.stdin.read()
"""


class StandInHost(NamedTuple):
    """A host, and what is known of it without asking."""

    session: Session
    threads: list[tuple[int, int]]
    """Process and thread of every vCPU."""


@contextmanager
def stand_in_host(guests: int, vcpus: int, pcpus: int, root: Path) -> Iterator[StandInHost]:
    """Have a host with so many guests of so many vCPUs each; ``root`` is an empty folder."""
    command = [sys.executable, "-c", PROCESSES, str(guests), str(vcpus)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as processes:
        assert processes.stdout is not None
        pids = [int(processes.stdout.readline()) for _ in range(guests)]
        _write_host(root, pids, pcpus)
        session = Session(_connection(pids, vcpus, pcpus), root, lambda _: None, 60.0)
        proc = Path("/proc")
        yield StandInHost(
            session, [(p, t) for p in pids for t in find_vcpu_threads(p, proc).values()]
        )
        session.close()
        assert processes.stdin is not None
        processes.stdin.close()


class _StandInLink(Link):
    """Answers for a libvirt that has these guests."""

    def __init__(self, pids: list[int], vcpus: int) -> None:
        super().__init__(None)
        self._pids = {
            f"{number:08x}-0000-4000-8000-000000000000": p for number, p in enumerate(pids)
        }
        self._vcpus = vcpus

    def is_alive(self) -> bool:
        return True

    def active(self) -> tuple[ActiveDomain, ...]:
        return tuple(map(self.find, self._pids))

    def find(self, uuid: str) -> ActiveDomain:
        return ActiveDomain(uuid, f"g{self._pids[uuid]}", self._pids[uuid])

    def state(self, uuid: str) -> int:
        del uuid
        return int(libvirt.VIR_DOMAIN_RUNNING)

    def is_persistent(self, uuid: str) -> bool:
        del uuid
        return False

    def live_xml(self, uuid: str) -> str:
        del uuid
        return XML.format(vcpus=self._vcpus)

    def vcpus(self, uuid: str) -> tuple[VcpuInfo, ...]:
        proc, pid = Path("/proc"), self._pids[uuid]
        return tuple(
            VcpuInfo(vcpu, read_run_ns(pid, thread, proc) or 0, frozenset())
            for vcpu, thread in find_vcpu_threads(pid, proc).items()
        )

    def on_domain_event(self, event_id: int, callback: Callable[..., Any]) -> None:
        """Nothing ever happens."""


def _connection(pids: list[int], vcpus: int, pcpus: int) -> Connection:
    link = _StandInLink(pids, vcpus)
    pool = LinkPool(link, None)
    uri, cpu_map = "qemu:///system", (True,) * pcpus
    return Connection(uri, "qemu", link, pool, pool, cpu_map, None, Event())


def _write_host(root: Path, pids: list[int], pcpus: int) -> None:
    """Write a host of two NUMA nodes with half of the pCPUs each."""
    for pid in pids:
        _link(root / f"proc/{pid}", Path("/proc", str(pid)))
        _write(root / f"run/libvirt/qemu/g{pid}.pid", str(pid))
    for name in ("self", "sys", "cpuinfo", "meminfo"):
        _link(root / "proc" / name, Path("/proc", name))
    counters = " ".join(["123456789"] * 4 + ["0"] * 6)
    lines = [f"cpu  {counters}", *(f"cpu{cpu} {counters}" for cpu in range(pcpus))]
    _write(root / "proc/stat", "\n".join([*lines, "intr 0", ""]))
    folder = root / "sys/devices/system"
    for name in ("present", "online", "possible"):
        _write(folder / "cpu" / name, f"0-{pcpus - 1}")
    for node in range(2):
        _write(folder / f"node/node{node}/meminfo", f"Node {node} MemTotal: 268435456 kB")
    for cpu in range(pcpus):
        own = folder / f"cpu/cpu{cpu}"
        first = cpu // CACHE * CACHE
        _write(own / "topology/core_cpus_list", str(cpu))
        _write(own / "cache/index3/level", "3")
        _write(own / "cache/index3/shared_cpu_list", f"{first}-{first + CACHE - 1}")
        name = f"node{2 * cpu // pcpus}"
        _link(own / name, folder / "node" / name)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _link(path: Path, to: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(to)
