"""Guest memory by NUMA node, from recorded control groups of either kind."""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from tests.hypervisor import fakes
from tests.hypervisor.trees import write_tree
from virtbalance.hypervisor.guest_reading import Guest
from virtbalance.hypervisor.node_memory import NodeMemory, memory_by_node_kib
from virtbalance.hypervisor.processes import GuestProcess
from virtbalance.model.guest import GuestDefinition

SCOPE = r"machine.slice/machine-qemu\x2d3\x2dweb.scope"
UNIFIED = """\
anon N0=1048576 N1=3145728
file N0=99999744 N1=99999744
kernel_stack N0=98304 N1=0
pagetables N0=1024 N1=1024
shmem N0=0 N1=2097152
file_mapped N0=4096 N1=4096
inactive_anon N0=1048576 N1=3145728
"""
LEGACY = """\
total=700 N0=300 N1=400
file=200 N0=100 N1=100
anon=500 N0=200 N1=300
unevictable=0 N0=0 N1=0
hierarchical_total=1024 N0=512 N1=512
hierarchical_file=200 N0=100 N1=100
hierarchical_anon=768 N0=512 N1=256
hierarchical_unevictable=256 N0=0 N1=256
"""


def memory(root: Path, groups: str, files: Mapping[str, str], *, huge: bool = False) -> object:
    write_tree(root, {"proc/7/cgroup": groups})
    write_tree(root / "sys/fs/cgroup", files)
    return memory_by_node_kib(7, root, huge=huge)


def test_unified_groups_count_anonymous_and_shared_memory(tmp_path: Path) -> None:
    groups = f"0::/{SCOPE}/libvirt/emulator\n"
    found = memory(tmp_path, groups, {f"{SCOPE}/libvirt/memory.numa_stat": UNIFIED})
    assert found == {0: 1024, 1: 3072 + 2048}


def test_legacy_groups_count_pages_of_all_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sysconf", {"SC_PAGE_SIZE": 4096}.__getitem__)
    group = "machine/qemu-3-web.libvirt-qemu"
    groups = f"9:name=systemd:/\n4:memory:/{group}\n2:cpuacct,cpu:/{group}/emulator\n0::/\n"
    files = {
        f"memory/{group}/memory.numa_stat": LEGACY,
        "memory/machine/memory.numa_stat": LEGACY.replace("512", "9999"),
    }
    assert memory(tmp_path, groups, files) == {0: 2048, 1: 2048}


def test_a_group_shared_with_others_tells_nothing_of_one_guest(tmp_path: Path) -> None:
    files = {"user.slice/memory.numa_stat": UNIFIED, "memory.numa_stat": UNIFIED}
    assert memory(tmp_path, "0::/user.slice\n", files) is None
    above = {"machine.slice/memory.numa_stat": UNIFIED}
    assert memory(tmp_path, f"0::/{SCOPE}/libvirt/emulator\n", above) is None


def test_huge_pages_count_where_they_are_accounted_for(tmp_path: Path) -> None:
    groups, folder = f"0::/{SCOPE}/libvirt/emulator\n", f"{SCOPE}/libvirt"
    files = {f"{folder}/memory.numa_stat": UNIFIED}
    assert memory(tmp_path, groups, files, huge=True) is None
    files |= {f"{folder}/hugetlb.1GB.numa_stat": "total=1073741824 N0=1073741824 N1=0\n"}
    assert memory(tmp_path, groups, files, huge=True) == {0: 1024 + 1048576, 1: 5120}


def test_a_process_that_is_gone(tmp_path: Path) -> None:
    assert memory_by_node_kib(7, tmp_path, huge=False) is None


def guest_of(pid: int, start_time: int = 1) -> Guest:
    return replace(
        fakes.guest(), process=GuestProcess(pid, start_time), definition=GuestDefinition()
    )


def test_guests_are_read_in_a_thread_and_not_again_before_it_is_due(tmp_path: Path) -> None:
    write_tree(tmp_path, {"proc/7/cgroup": f"0::/{SCOPE}/libvirt/emulator\n"})
    stat = tmp_path / "sys/fs/cgroup" / SCOPE / "libvirt"
    write_tree(stat, {"memory.numa_stat": UNIFIED})
    known, guests = NodeMemory(tmp_path), {"web": guest_of(7)}
    end_s = time.monotonic() + 5
    while not known.current(guests):
        assert time.monotonic() < end_s
        time.sleep(0.01)
    assert known.current(guests) == {GuestProcess(7, 1): {0: 1024, 1: 5120}}
    assert GuestProcess(7, 2) not in known.current(guests), "started anew: another process"
    write_tree(stat, {"memory.numa_stat": UNIFIED.replace("3145728", "0")})
    time.sleep(0.05)
    assert known.current(guests)[GuestProcess(7, 1)] == {0: 1024, 1: 5120}
    known._next_s = 0.0
    while known.current(guests)[GuestProcess(7, 1)] != {0: 1024, 1: 2048}:
        assert time.monotonic() < end_s
        time.sleep(0.01)
    known.close()
