"""The topology from /sys of hosts of every shape."""

from pathlib import Path

import pytest

from tests.hypervisor.trees import (
    CPU_FOLDER,
    big_with_holes,
    flat,
    hybrid,
    two_nodes_with_smt,
    write_tree,
)
from virtbalance.hypervisor.topology import read_topology, topology_mark
from virtbalance.model.topology import NumaNode, Pcpu


def test_flat_host(tmp_path: Path) -> None:
    topology = read_topology(flat(2).write(tmp_path), map_length=2)
    assert topology.pcpus == (Pcpu(0, core=0, llc=0, node=0), Pcpu(1, core=1, llc=0, node=0))
    assert topology.nodes == (NumaNode(0, 16777216),)
    assert topology.usable == {0, 1}
    assert topology.map_length == 2


def test_two_nodes_with_smt(tmp_path: Path) -> None:
    topology = read_topology(two_nodes_with_smt().write(tmp_path))
    assert topology.by_id[11] == Pcpu(11, core=3, llc=0, node=0)
    assert topology.by_id[12] == Pcpu(12, core=4, llc=4, node=1)
    assert len({pcpu.core for pcpu in topology.pcpus}) == 8
    assert [node.id for node in topology.nodes] == [0, 1]


def test_holes_offline_and_isolated_cpus(tmp_path: Path) -> None:
    topology = read_topology(big_with_holes().write(tmp_path), map_length=128)
    assert len(topology.pcpus) == 96
    assert 64 not in topology.by_id
    assert topology.map_length == 128
    offline = {pcpu.id for pcpu in topology.pcpus if not pcpu.online}
    assert offline == {0, 40, 100, 101, 102, 103}
    assert topology.usable == {*range(64), *range(96, 128)} - offline - {62, 63}
    assert topology.by_id[1] == Pcpu(1, core=1, llc=1, node=0), "its sibling 0 is offline"
    assert topology.by_id[127] == Pcpu(127, core=126, llc=112, node=1)
    assert topology.by_id[63].isolated


def test_hybrid_speeds_from_frequencies(tmp_path: Path) -> None:
    topology = read_topology(hybrid().write(tmp_path))
    assert topology.by_id[7].speed_ratio == 1.0
    assert topology.by_id[8].speed_ratio == pytest.approx(0.76)


def test_capacity_is_preferred_to_frequency(tmp_path: Path) -> None:
    host = flat(2)
    host.capacities = {0: 1024, 1: 256}
    host.frequencies_khz = {0: 2_000_000, 1: 2_000_000}
    topology = read_topology(host.write(tmp_path))
    assert [pcpu.speed_ratio for pcpu in topology.pcpus] == [1.0, 0.25]


def test_speeds_that_only_some_cpus_tell_are_not_compared(tmp_path: Path) -> None:
    host = flat(2)
    host.frequencies_khz = {1: 2_000_000}
    topology = read_topology(host.write(tmp_path))
    assert [pcpu.speed_ratio for pcpu in topology.pcpus] == [1.0, 1.0]


def test_isolated_by_a_control_group(tmp_path: Path) -> None:
    flat(4).write(tmp_path)
    write_tree(tmp_path, {"sys/fs/cgroup/cpuset.cpus.isolated": "2-3\n"})
    assert read_topology(tmp_path).usable == {0, 1}


def test_host_without_cache_files_takes_the_package(tmp_path: Path) -> None:
    files = {"present": "0-3", "online": "0-3", "isolated": "(null)"}
    for cpu in range(4):
        package = "0-1" if cpu < 2 else "2-3"
        files[f"cpu{cpu}/topology/package_cpus_list"] = package
        files[f"cpu{cpu}/topology/thread_siblings_list"] = str(cpu)
    write_tree(tmp_path / CPU_FOLDER, files)
    topology = read_topology(tmp_path)
    assert [pcpu.llc for pcpu in topology.pcpus] == [0, 0, 2, 2]
    assert topology.usable == {0, 1, 2, 3}


def test_mark_changes_when_a_cpu_goes_offline(tmp_path: Path) -> None:
    flat(2).write(tmp_path)
    before = topology_mark(tmp_path)
    assert topology_mark(tmp_path) == before
    write_tree(tmp_path / CPU_FOLDER, {"online": "0\n"})
    assert topology_mark(tmp_path) != before
