"""Counters of a local host from /proc and /sys: CPU time, memory, memory pressure, KSM, ZFS."""

import os
import time
from pathlib import Path

from virtbalance.model.snapshot import HostMemory, PcpuSample

_ARC_STATISTICS = "proc/spl/kstat/zfs/arcstats"
_NS_PER_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_IDLE, _IOWAIT, _STEAL, _GUEST = 3, 4, 7, 8
"""Columns of /proc/stat; time of guests is part of the first."""


def read_pcpus(root: Path) -> tuple[PcpuSample, ...]:
    """Return busy and stolen time of each CPU that is online."""
    text = (root / "proc/stat").read_text()
    return parse_stat(text, time.monotonic_ns())


def parse_stat(text: str, now_ns: int) -> tuple[PcpuSample, ...]:
    """Read /proc/stat: busy is what is neither idle nor stolen.

    The kernel measures idle time exactly, but user and system time mostly by what it meets at its
    ticks: who sleeps until a tick comes counts for less than he uses, who ends before it for more.
    """
    samples = []
    for line in text.splitlines():
        if not line.startswith("cpu"):
            break
        name, *ticks = line.split()
        if name == "cpu":
            continue
        idle_ns = (int(ticks[_IDLE]) + int(ticks[_IOWAIT])) * _NS_PER_TICK
        steal_ns = int(ticks[_STEAL]) * _NS_PER_TICK
        samples.append(PcpuSample(int(name[3:]), now_ns - idle_ns - steal_ns, steal_ns))
    return tuple(samples)


def parse_steal_ratio(text: str) -> float:
    """Return the stolen part of what /proc/stat counts as not idle since the start."""
    used = [int(ticks) for ticks in text.splitlines()[0].split()[1 : 1 + _GUEST]] if text else []
    not_idle = sum(used) - sum(used[_IDLE : _IOWAIT + 1])
    return used[_STEAL] / not_idle if not_idle else 0.0


def read_memory(root: Path) -> HostMemory:
    """Return the host's memory, with pressure where the kernel tells it."""
    facts = parse_meminfo((root / "proc/meminfo").read_text())
    pressure = _parse_pressure(_text(root / "proc/pressure/memory"))
    ksm_pages = int(_text(root / "sys/kernel/mm/ksm/pages_sharing") or 0)
    return HostMemory(
        total_kib=facts["MemTotal"],
        available_kib=facts["MemAvailable"] + _zfs_reclaimable_kib(root),
        pressure_some_ratio=pressure.get("some"),
        pressure_full_ratio=pressure.get("full"),
        ksm_shared_kib=ksm_pages * os.sysconf("SC_PAGE_SIZE") // 1024,
    )


def _zfs_reclaimable_kib(root: Path) -> int:
    """Return how much ZFS's cache can shrink; ``MemAvailable`` knows nothing of it."""
    rows = (line.split() for line in _text(root / _ARC_STATISTICS).splitlines())
    facts = {row[0]: row[2] for row in rows if len(row) == 3}
    return max(0, int(facts.get("size", 0)) - int(facts.get("c_min", 0))) // 1024


def parse_meminfo(text: str) -> dict[str, int]:
    """Return the figures of /proc/meminfo in KiB."""
    facts = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        if fields := rest.split():
            facts[name] = int(fields[0])
    return facts


def read_boot_id(root: Path) -> str:
    """Return the kernel's random name for this boot; empty if it has none."""
    return _text(root / "proc/sys/kernel/random/boot_id")


def _parse_pressure(text: str) -> dict[str, float]:
    """Return share of the last 10 s by kind, from lines like ``some avg10=1.50 avg60=...``."""
    ratios = {}
    for line in text.splitlines():
        kind, average, *_ = line.split()
        ratios[kind] = float(average.removeprefix("avg10=")) / 100
    return ratios


def _text(path: Path) -> str:
    """Return a file's text; which of them exist depends on how the kernel was built."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
