r"""How much of each guest's memory lies on which NUMA node, from its control group.

libvirt puts every guest into a group of its own: ``machine-qemu\x2d1\x2dweb.scope`` where systemd
manages them, ``qemu-1-web.libvirt-qemu`` elsewhere. One small file there counts pages by node,
where ``numa_maps`` would walk the page tables. Only what can be guest memory counts: anonymous,
shared and huge pages, but not the page cache of disk images. Where there is no such group, nobody
knows.
"""

import math
import os
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

from virtbalance.hypervisor.calls import Callers
from virtbalance.hypervisor.guest_reading import Guest
from virtbalance.hypervisor.processes import GuestProcess

INTERVAL_S = 10.0
_GUEST_GROUP = re.compile(r"machine-qemu.*\.scope|.+\.libvirt-qemu")
_FILE = "memory.numa_stat"
_UNIFIED_KINDS = frozenset({"anon", "shmem"})
_LEGACY_KINDS = frozenset({"hierarchical_anon", "hierarchical_unevictable"})
_HUGE_KINDS = frozenset({"total"})


class NodeMemory:
    """The figures of all guests, read every 10 s in a thread: the kernel may sum up for long."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._callers = Callers("node-memory", 1)
        self._known: Mapping[GuestProcess, Mapping[int, int]] = {}
        self._next_s = 0.0

    def current(self, guests: Mapping[str, Guest]) -> Mapping[GuestProcess, Mapping[int, int]]:
        """Return KiB by node of each guest's process as last read, and have them read when due."""
        if time.monotonic() >= self._next_s:
            self._next_s = math.inf
            self._callers.submit("read", partial(self._read, tuple(guests.values())))
        return self._known

    def close(self) -> None:
        """Let the reading thread end."""
        self._callers.close()

    def _read(self, guests: Iterable[Guest]) -> None:
        found = {}
        for guest in guests:
            if guest.process is not None:
                is_huge = guest.definition.unswappable == "hugepages"
                memory = memory_by_node_kib(guest.process.pid, self._root, huge=is_huge)
                if memory is not None:
                    found[guest.process] = memory
        self._known = found
        self._next_s = time.monotonic() + INTERVAL_S


def memory_by_node_kib(pid: int, root: Path, *, huge: bool) -> dict[int, int] | None:
    """Return the memory of a guest's process by NUMA node, in KiB; ``None``: nobody tells.

    ``huge``: the guest's memory is huge pages, so a group that does not count these knows nothing.
    """
    for folder in _memory_groups(pid, root):
        text = _text(folder / _FILE)
        if not text:
            continue
        huge_pages = [_text(path) for path in sorted(folder.glob("hugetlb.*.numa_stat"))]
        if huge and not huge_pages:
            return None
        if "hierarchical_total=" in text:
            pages = _by_node(text, _LEGACY_KINDS)
            return {n: count * os.sysconf("SC_PAGE_SIZE") // 1024 for n, count in pages.items()}
        total = _by_node(text, _UNIFIED_KINDS)
        for counted in huge_pages:
            total += _by_node(counted, _HUGE_KINDS)
        return {node: size // 1024 for node, size in total.items()}
    return None


def _memory_groups(pid: int, root: Path) -> Iterator[Path]:
    """Yield the folders that may count this guest's memory and nobody else's, innermost first."""
    base = root / "sys/fs/cgroup"
    for line in _text(root / "proc" / str(pid) / "cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        parts = group.strip("/").split("/")
        own = next((i for i, part in enumerate(parts) if _GUEST_GROUP.fullmatch(part)), len(parts))
        for depth in range(len(parts), own, -1):
            yield (base / "memory" if controllers else base).joinpath(*parts[:depth])


def _by_node(text: str, kinds: frozenset[str]) -> Counter[int]:
    """Sum up lines like ``anon N0=4096 N1=0`` or ``hierarchical_anon=1 N0=1`` by node."""
    total: Counter[int] = Counter()
    for line in text.splitlines():
        kind, *counts = line.split()
        if kind.partition("=")[0] in kinds:
            for count in counts:
                node, _, value = count.removeprefix("N").partition("=")
                total[int(node)] += int(value)
    return total


def _text(path: Path) -> str:
    """Return a file's text; a guest may end at any moment, so a missing file is empty."""
    try:
        return path.read_text()
    except OSError:
        return ""
