"""Hosts that are not there: /sys and /proc trees written into a folder."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from virtbalance.model.cpu_list import format_cpu_list

CPU_FOLDER = "sys/devices/system/cpu"


def write_tree(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@dataclass
class HostTree:
    """CPUs as groups of numbers: who shares a core, a last-level cache, a node."""

    cores: Sequence[Iterable[int]]
    caches: Sequence[Iterable[int]]
    nodes: Sequence[Iterable[int]]
    possible: str | None = None
    offline: frozenset[int] = frozenset()
    isolated: str = ""
    frequencies_khz: Mapping[int, int] = field(default_factory=dict)
    capacities: Mapping[int, int] = field(default_factory=dict)

    def write(self, root: Path) -> Path:
        present = sorted(cpu for node in self.nodes for cpu in node)
        online = [cpu for cpu in present if cpu not in self.offline]
        files = {
            "present": format_cpu_list(present),
            "online": format_cpu_list(online),
            "possible": self.possible or format_cpu_list(present),
            "isolated": self.isolated,
        }
        for cpu in present:
            (root / CPU_FOLDER / f"cpu{cpu}").mkdir(parents=True)
        for cpu in online:
            files |= self._cpu_files(cpu)
        write_tree(root / CPU_FOLDER, {name: text + "\n" for name, text in files.items()})
        for number, node in enumerate(self.nodes):
            self._write_node(root, number, node)
        return root

    def _cpu_files(self, cpu: int) -> dict[str, str]:
        core = self._group(self.cores, cpu)
        folder = f"cpu{cpu}"
        files = {
            f"{folder}/topology/core_cpus_list": core,
            f"{folder}/topology/package_cpus_list": self._group(self.nodes, cpu),
            f"{folder}/cache/index0/level": "1",
            f"{folder}/cache/index0/type": "Data",
            f"{folder}/cache/index0/shared_cpu_list": core,
            f"{folder}/cache/index1/level": "1",
            f"{folder}/cache/index1/type": "Instruction",
            f"{folder}/cache/index1/shared_cpu_list": core,
            f"{folder}/cache/index3/level": "3",
            f"{folder}/cache/index3/type": "Unified",
            f"{folder}/cache/index3/shared_cpu_list": self._group(self.caches, cpu),
        }
        if cpu in self.frequencies_khz:
            files[f"{folder}/cpufreq/cpuinfo_max_freq"] = str(self.frequencies_khz[cpu])
        if cpu in self.capacities:
            files[f"{folder}/cpu_capacity"] = str(self.capacities[cpu])
        return files

    def _group(self, groups: Sequence[Iterable[int]], cpu: int) -> str:
        """The kernel lists only CPUs that are online."""
        members = next(set(group) for group in groups if cpu in group)
        return format_cpu_list(members - self.offline)

    def _write_node(self, root: Path, number: int, node: Iterable[int]) -> None:
        folder = root / f"sys/devices/system/node/node{number}"
        memory = f"Node {number} MemTotal:       16777216 kB\nNode {number} MemFree:  1 kB\n"
        write_tree(folder, {"meminfo": memory, "cpulist": format_cpu_list(node)})
        for cpu in node:
            (root / CPU_FOLDER / f"cpu{cpu}" / f"node{number}").symlink_to(folder)


def flat(count: int) -> HostTree:
    """One socket without SMT."""
    return HostTree([[cpu] for cpu in range(count)], [range(count)], [range(count)])


def two_nodes_with_smt() -> HostTree:
    """Two sockets of 4 cores with 2 threads, numbered as BIOSes like to: siblings 8 apart."""
    nodes = [{*range(4), *range(8, 12)}, {*range(4, 8), *range(12, 16)}]
    return HostTree([{core, core + 8} for core in range(8)], nodes, nodes)


def big_with_holes() -> HostTree:
    """96 CPUs in four caches and two nodes; 64 to 95 missing, some offline, two isolated."""
    caches = [range(32), range(32, 64), range(96, 112), range(112, 128)]
    return HostTree(
        cores=[{cpu, cpu + 1} for cpu in (*range(0, 64, 2), *range(96, 128, 2))],
        caches=caches,
        nodes=[range(64), range(96, 128)],
        possible="0-255",
        offline=frozenset({0, 40, 100, 101, 102, 103}),
        isolated="62-63",
    )


def hybrid() -> HostTree:
    """Four fast cores with two threads, four slow ones with one."""
    return HostTree(
        cores=[{0, 1}, {2, 3}, {4, 5}, {6, 7}, {8}, {9}, {10}, {11}],
        caches=[range(12)],
        nodes=[range(12)],
        frequencies_khz={cpu: 5_000_000 if cpu < 8 else 3_800_000 for cpu in range(12)},
    )
