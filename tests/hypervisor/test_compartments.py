"""NUMA nodes and control groups that guests can't leave, from literal files."""

from dataclasses import replace
from pathlib import Path

from tests.hypervisor.fakes import guest
from tests.hypervisor.trees import write_tree
from virtbalance.hypervisor.compartments import Compartments
from virtbalance.hypervisor.guest_reading import Guest
from virtbalance.hypervisor.processes import GuestProcess
from virtbalance.model.guest import GuestDefinition
from virtbalance.model.snapshot import Compartment

MIB = 1024
NODE = """\
Node {0} MemTotal:       8388608 kB
Node {0} MemFree:        1048576 kB
Node {0} MemUsed:        7340032 kB
Node {0} Active(anon):   4194304 kB
Node {0} Active(file):    204800 kB
Node {0} Inactive(file):  102400 kB
Node {0} SReclaimable:     51200 kB
"""
SCOPE = r"machine.slice/machine-qemu\x2d1\x2dweb.scope"
STAT = "anon 900\ninactive_file 104857600\nactive_file 52428800\nslab 5\n"


def nodes(count: int) -> dict[str, str]:
    folder = "sys/devices/system/node"
    return {f"{folder}/node{n}/meminfo": NODE.format(n) for n in range(count)}


def bound(uuid: str, *on: int) -> Guest:
    about = GuestDefinition(memory_nodes=frozenset(on) or None)
    return replace(guest(uuid), definition=about)


def running(uuid: str, pid: int) -> Guest:
    return replace(guest(uuid), process=GuestProcess(pid, 1))


def test_guests_bound_to_a_node_and_what_is_available_there(tmp_path: Path) -> None:
    compartments = Compartments(write_tree(tmp_path, nodes(2)))
    available_kib = 1048576 + 204800 + 102400 + 51200
    assert compartments.read([bound("a", 0), bound("b", 0), bound("c")]) == (
        Compartment("NUMA node 0", 8388608, available_kib, frozenset({"a", "b"})),
    )
    assert compartments.read([bound("a", 0), bound("b", 0, 1)]) == (
        Compartment("NUMA node 0", 8388608, available_kib, frozenset({"a"})),
        Compartment("NUMA nodes 0-1", 2 * 8388608, 2 * available_kib, frozenset({"a", "b"})),
    )


def test_on_a_host_with_one_node_nobody_is_confined_by_it(tmp_path: Path) -> None:
    assert Compartments(write_tree(tmp_path, nodes(1))).read([bound("a", 0)]) == ()


def test_limits_of_the_slice_above_and_of_one_guest(tmp_path: Path) -> None:
    files = {
        "proc/7/cgroup": f"0::/{SCOPE}/libvirt/emulator\n",
        "proc/8/cgroup": "0::/machine.slice/other.scope/libvirt/emulator\n",
        "proc/9/cgroup": "0::/system.slice/shell.service\n",
        "sys/fs/cgroup/machine.slice/memory.max": f"{4096 * MIB * 1024}\n",
        "sys/fs/cgroup/machine.slice/memory.current": f"{3000 * MIB * 1024}\n",
        "sys/fs/cgroup/machine.slice/memory.stat": STAT,
        f"sys/fs/cgroup/{SCOPE}/memory.max": "max\n",
        "sys/fs/cgroup/machine.slice/other.scope/memory.max": f"{1024 * MIB * 1024}\n",
        "sys/fs/cgroup/machine.slice/other.scope/memory.current": f"{600 * MIB * 1024}\n",
    }
    compartments = Compartments(write_tree(tmp_path, files))
    guests = [running("a", 7), running("b", 8), running("c", 9), guest("d")]
    slice_, scope = "control group machine.slice", "control group machine.slice/other.scope"
    assert compartments.read(guests) == (
        Compartment(scope, 1024 * MIB, 424 * MIB, frozenset({"b"})),
        Compartment(slice_, 4096 * MIB, (4096 - 3000 + 150) * MIB, frozenset({"a", "b"})),
    )


def test_limits_are_followed_and_so_are_guests_that_come(tmp_path: Path) -> None:
    base = "sys/fs/cgroup/machine.slice"
    files = {"proc/7/cgroup": "0::/machine.slice/a\n", "proc/8/cgroup": "0::/machine.slice/b\n"}
    root = write_tree(tmp_path, {**files, f"{base}/memory.max": f"{4096 * MIB * 1024}\n"})
    compartments = Compartments(root)
    assert compartments.read([running("a", 7)])[0].total_kib == 4096 * MIB
    write_tree(root, {f"{base}/memory.max": f"{2048 * MIB * 1024}\n"})
    (seen,) = compartments.read([running("a", 7), running("b", 8)])
    assert (seen.total_kib, seen.guests) == (2048 * MIB, frozenset("ab"))
    write_tree(root, {f"{base}/memory.max": "max\n"})
    assert compartments.read([running("a", 7), running("b", 8)]) == ()


def test_control_groups_of_version_1(tmp_path: Path) -> None:
    base = "sys/fs/cgroup/memory/machine"
    files = {
        "proc/7/cgroup": "5:cpu,cpuacct:/machine/a\n4:memory:/machine/a\n0::/\n",
        f"{base}/memory.limit_in_bytes": f"{4096 * MIB * 1024}\n",
        f"{base}/memory.usage_in_bytes": f"{1024 * MIB * 1024}\n",
        f"{base}/memory.stat": "inactive_file 1\ntotal_inactive_file 1048576\n",
        f"{base}/a/memory.limit_in_bytes": "9223372036854771712\n",
    }
    compartments = Compartments(write_tree(tmp_path, files))
    assert compartments.read([running("a", 7)]) == (
        Compartment("control group machine", 4096 * MIB, 3073 * MIB, frozenset({"a"})),
    )
