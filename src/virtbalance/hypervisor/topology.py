"""The host's CPUs from /sys: cores, caches, nodes, what is offline, isolated, or slower.

Every path goes through one root prefix, so recorded trees are the test data. The kernel's files
hold CPU numbers directly, so holes in the numbering need no care; an offline CPU has no topology
folder and stands alone. Frequencies tell speeds apart only on hosts with different kinds of CPU:
elsewhere all maxima are equal and the ratio is 1.
"""

from pathlib import Path

from virtbalance.model.cpu_list import parse_cpu_list
from virtbalance.model.topology import NumaNode, Pcpu, Topology

_SIBLING_FILES = ("core_cpus_list", "thread_siblings_list")
_PACKAGE_FILES = ("die_cpus_list", "package_cpus_list", "core_siblings_list")
_SPEED_FILES = ("cpu_capacity", "cpufreq/cpuinfo_max_freq")
_SMALLEST_SPEED_RATIO = 0.05
_MARK_FILES = ("present", "online", "isolated")


def read_topology(root: Path, map_length: int = 0) -> Topology:
    """Read the topology below ``root``; ``map_length`` is libvirt's, if it is known."""
    cpu_folder = root / "sys/devices/system/cpu"
    present, online, isolated = (_cpus(cpu_folder / name) for name in _MARK_FILES)
    isolated |= _cpus(root / "sys/fs/cgroup/cpuset.cpus.isolated")
    speeds = _speeds(cpu_folder, online)
    pcpus = []
    for cpu in sorted(present | online):
        folder = cpu_folder / f"cpu{cpu}"
        package = _first_list(folder / "topology", _PACKAGE_FILES)
        pcpus.append(
            Pcpu(
                id=cpu,
                core=min(_first_list(folder / "topology", _SIBLING_FILES), default=cpu),
                llc=min(_last_level_cache(folder / "cache") or package, default=cpu),
                node=_node(folder),
                online=cpu in online,
                isolated=cpu in isolated,
                speed_ratio=speeds.get(cpu, 1.0),
            )
        )
    return Topology(tuple(pcpus), _nodes(root / "sys/devices/system/node"), map_length)


def topology_mark(root: Path) -> tuple[str, ...]:
    """Return the little that changes when a CPU is plugged or isolated: cheap to compare."""
    folder = root / "sys/devices/system/cpu"
    return (
        *(_text(folder / name) for name in _MARK_FILES),
        _text(root / "sys/fs/cgroup/cpuset.cpus.isolated"),
    )


def _last_level_cache(folder: Path) -> frozenset[int]:
    level, cpus = 0, frozenset[int]()
    for index in sorted(folder.glob("index*")):
        this_level = int(_text(index / "level") or 0)
        if this_level > level and _text(index / "type") != "Instruction":
            level, cpus = this_level, _cpus(index / "shared_cpu_list")
    return cpus


def _speeds(cpu_folder: Path, online: frozenset[int]) -> dict[int, float]:
    for name in _SPEED_FILES:
        found = {cpu: _text(cpu_folder / f"cpu{cpu}" / name) for cpu in online}
        speeds = {cpu: float(text) for cpu, text in found.items() if text}
        if speeds and len(speeds) == len(online):
            fastest = max(speeds.values())
            return {
                cpu: max(_SMALLEST_SPEED_RATIO, speed / fastest) for cpu, speed in speeds.items()
            }
    return {}


def _node(folder: Path) -> int:
    return min((int(path.name[4:]) for path in folder.glob("node[0-9]*")), default=0)


def _nodes(folder: Path) -> tuple[NumaNode, ...]:
    nodes = []
    for path in folder.glob("node[0-9]*"):
        total = [line for line in _text(path / "meminfo").splitlines() if " MemTotal:" in line]
        nodes.append(NumaNode(int(path.name[4:]), int(total[0].split()[-2]) if total else 0))
    return tuple(sorted(nodes, key=lambda node: node.id))


def _first_list(folder: Path, names: tuple[str, ...]) -> frozenset[int]:
    for name in names:
        if cpus := _cpus(folder / name):
            return cpus
    return frozenset()


def _cpus(path: Path) -> frozenset[int]:
    return parse_cpu_list(_text(path))


def _text(path: Path) -> str:
    """Return a file's text; kernels differ in which files they have, so a missing one is empty."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
