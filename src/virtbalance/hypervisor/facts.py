"""What the owner of a host should know before trusting a balance on it: steal, limits, rivals."""

import os
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from virtbalance.hypervisor.host import parse_steal_ratio
from virtbalance.model.cpu_list import parse_cpu_list
from virtbalance.model.snapshot import HostFact

_PARTITION_DEPTH = 3
_STEAL_RATIO = 0.01
_LEGACY_CPU_GROUP = re.compile(r"^\d+:(?:[^:]*,)?cpu(?:,[^:]*)?:(.*)$", re.MULTILINE)


def read_facts(root: Path) -> tuple[HostFact, ...]:
    """Look at a local host once. Costs some milliseconds, so not for every sample.

    The texts hold no figures that change by themselves, so that each can be said once.
    """
    found = (
        _steal(root),
        _sched_ext(root),
        _partitions(root),
        _cpu_limit(root),
        _own_affinity(root),
        _numad(root),
    )
    return tuple(fact for fact in found if fact is not None)


def _steal(root: Path) -> HostFact | None:
    flags = re.search(r"^flags\s*:(.*)$", _text(root / "proc/cpuinfo"), re.MULTILINE)
    ratio = parse_steal_ratio(_text(root / "proc/stat"))
    if (flags is None or "hypervisor" not in flags[1].split()) and ratio <= _STEAL_RATIO:
        return None
    text = "this host is itself a virtual machine: the hypervisor below may take CPU time away"
    return HostFact("steal", text)


def _sched_ext(root: Path) -> HostFact | None:
    folder = root / "sys/kernel/sched_ext"
    if _text(folder / "state") != "enabled":
        return None
    name = _text(folder / "root/ops") or "unknown"
    return HostFact("sched-ext", f"the kernel runs the scheduler {name}, which may ignore weights")


def _partitions(root: Path) -> HostFact | None:
    base = root / "sys/fs/cgroup"
    unified = [
        (str(path.parent.relative_to(base)), "cpuset.cpus")
        for path in _below(base, "cpuset.cpus.partition", _PARTITION_DEPTH)
        if _text(path) in ("root", "isolated") and path.parent != base
    ]
    legacy = [
        (str(path.parent.relative_to(base)), "cpuset.cpus")
        for path in _below(base / "cpuset", "cpuset.cpu_exclusive", _PARTITION_DEPTH)
        if _text(path) == "1" and path.parent != base / "cpuset"
    ]
    taken = [f"{group} has CPUs {_text(base / group / cpus)}" for group, cpus in unified + legacy]
    if not taken:
        return None
    text = "control groups take CPUs for themselves, no guest outside can run there"
    return HostFact("cpuset-partition", f"{text}: {'; '.join(sorted(taken))}")


def _cpu_limit(root: Path) -> HostFact | None:
    limits = [limit for limit in (_unified_limit(root), _legacy_limit(root)) if limit is not None]
    if not limits:
        return None
    text = "a control group limits this program, and perhaps the guests, to"
    return HostFact("cpu-limit", f"{text} {min(limits):.2f} CPUs")


def _unified_limit(root: Path) -> float | None:
    base = root / "sys/fs/cgroup"
    own = re.search(r"^0::(.*)$", _text(root / "proc/self/cgroup"), re.MULTILINE)
    limits = []
    for folder in _up(base, own[1] if own else "/"):
        quota, _, period = _text(folder / "cpu.max").partition(" ")
        if quota.isdigit() and period.isdigit():
            limits.append(int(quota) / int(period))
    return min(limits, default=None)


def _legacy_limit(root: Path) -> float | None:
    base = root / "sys/fs/cgroup/cpu"
    own = _LEGACY_CPU_GROUP.search(_text(root / "proc/self/cgroup"))
    limits = []
    for folder in _up(base, own[1] if own else "/"):
        quota, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit():
            limits.append(int(quota) / int(period))
    return min(limits, default=None)


def _own_affinity(root: Path) -> HostFact | None:
    allowed = _status_cpus(_text(root / "proc/self/status"))
    online = parse_cpu_list(_text(root / "sys/devices/system/cpu/online"))
    if not allowed or not online or allowed >= online:
        return None
    text = f"this program may use {len(allowed)} of {len(online)} CPUs"
    return HostFact("own-affinity", f"{text}: it seems to run in a container")


def _status_cpus(status: str) -> frozenset[int]:
    found = re.search(r"^Cpus_allowed_list:\s*(\S+)$", status, re.MULTILINE)
    return parse_cpu_list(found[1]) if found else frozenset()


def _numad(root: Path) -> HostFact | None:
    """Look for numad by its pid file; with ``-S 0`` it only touches what it is told to."""
    pid = _text(root / "run/numad.pid")
    if not pid.isdigit() or _text(root / "proc" / pid / "comm") != "numad":
        return None
    words = _text(root / "proc" / pid / "cmdline").split("\0")
    if "-S0" in words or ("-S", "0") in pairwise(words):
        return None
    return HostFact("numad", "numad moves processes between NUMA nodes and will undo placements")


def _up(base: Path, group: str) -> Iterator[Path]:
    """All folders from a control group up to the root of the hierarchy."""
    folder = base / group.strip("/")
    yield folder
    while folder != base and base in folder.parents:
        folder = folder.parent
        yield folder


def _below(folder: Path, name: str, depth: int) -> Iterator[Path]:
    for where, folders, files in os.walk(folder):
        if name in files:
            yield Path(where) / name
        if len(Path(where).relative_to(folder).parts) >= depth:
            folders.clear()


def _text(path: Path) -> str:
    """Return a file's text; kernels and hosts differ in what there is."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
