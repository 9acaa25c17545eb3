"""Parts of a local host's memory that some guests can't leave: NUMA nodes and limited groups.

A guest with a strict ``numatune`` has its memory on those nodes and nowhere else. A control group
with ``memory.max`` (``memory.limit_in_bytes`` in version 1) bounds all guests below it together,
whether the owner set it on a slice or libvirt on one guest as its ``hard_limit``.
"""

import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from virtbalance.hypervisor.guest_reading import Guest
from virtbalance.model.cpu_list import format_cpu_list
from virtbalance.model.snapshot import Compartment

INTERVAL_S = 10.0
_NODES = "sys/devices/system/node"
_NODE_AVAILABLE = ("MemFree", "Active(file)", "Inactive(file)", "SReclaimable")
_UNLIMITED_BYTES = 1 << 60
"""Version 1 says so with the largest number that is a multiple of a page."""


class _Files(NamedTuple):
    """What a version of control groups calls its files and their lines."""

    limit: str
    usage: str
    caches: tuple[str, ...]


_UNIFIED = _Files("memory.max", "memory.current", ("inactive_file", "active_file"))
_LEGACY = _Files(
    "memory.limit_in_bytes",
    "memory.usage_in_bytes",
    ("total_inactive_file", "total_active_file"),
)


class _Group(NamedTuple):
    """A control group with a limit."""

    folder: Path
    name: str
    files: _Files


class Compartments:
    """Looks for limited groups now and then, and at those found every time."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._groups: Mapping[_Group, frozenset[str]] = {}
        self._incarnations: Mapping[str, str] = {}
        self._next_s = 0.0

    def read(self, guests: Collection[Guest]) -> tuple[Compartment, ...]:
        """Return all compartments with some of these guests in them, smallest first."""
        incarnations = {guest.uuid: guest.incarnation for guest in guests}
        if incarnations != self._incarnations or time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + INTERVAL_S
            self._incarnations = incarnations
            self._groups = _limited_groups(self._root, guests)
        found = [*_nodes(self._root, guests), *self._limited()]
        return tuple(sorted(found, key=lambda c: (len(c.guests), c.name)))

    def _limited(self) -> Iterator[Compartment]:
        for group, members in self._groups.items():
            limit_kib = _limit_kib(group.folder, group.files)
            if limit_kib is not None:
                usage_kib = int(_text(group.folder / group.files.usage) or 0) // 1024
                facts = _facts(group.folder / "memory.stat")
                caches_kib = sum(facts.get(key, 0) for key in group.files.caches) // 1024
                available_kib = max(0, limit_kib - usage_kib + caches_kib)
                yield Compartment(group.name, limit_kib, available_kib, members)


def _nodes(root: Path, guests: Collection[Guest]) -> Iterator[Compartment]:
    bound = {
        guest.uuid: guest.definition.memory_nodes
        for guest in guests
        if guest.definition.memory_nodes
    }
    if not bound or len(list((root / _NODES).glob("node[0-9]*"))) < 2:
        return
    for nodes in set(bound.values()):
        memory = [_node_facts(root, node) for node in nodes]
        yield Compartment(
            f"NUMA node{'s' if len(nodes) > 1 else ''} {format_cpu_list(nodes)}",
            total_kib=sum(facts.get("MemTotal", 0) for facts in memory),
            available_kib=sum(facts.get(key, 0) for facts in memory for key in _NODE_AVAILABLE),
            guests=frozenset(uuid for uuid, theirs in bound.items() if theirs <= nodes),
        )


def _node_facts(root: Path, node: int) -> dict[str, int]:
    """Return one node's memory in KiB, from lines like ``Node 0 MemFree:  1024 kB``."""
    rows = (line.split() for line in _text(root / _NODES / f"node{node}/meminfo").splitlines())
    return {row[2].rstrip(":"): int(row[3]) for row in rows if len(row) > 3}


def _limited_groups(root: Path, guests: Collection[Guest]) -> dict[_Group, frozenset[str]]:
    members: dict[_Group, set[str]] = {}
    for guest in guests:
        for group in _groups_of(guest, root):
            if group in members or _limit_kib(group.folder, group.files) is not None:
                members.setdefault(group, set()).add(guest.uuid)
    return {group: frozenset(uuids) for group, uuids in members.items()}


def _groups_of(guest: Guest, root: Path) -> Iterator[_Group]:
    """Yield the control groups that count a guest's memory, innermost first."""
    if guest.process is None:
        return
    base = root / "sys/fs/cgroup"
    for line in _text(root / "proc" / str(guest.process.pid) / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        parts = path.strip("/").split("/")
        for depth in range(len(parts), 0, -1):
            folder = (base / "memory" if controllers else base).joinpath(*parts[:depth])
            name = f"control group {'/'.join(parts[:depth])}"
            yield _Group(folder, name, _LEGACY if controllers else _UNIFIED)


def _limit_kib(folder: Path, files: _Files) -> int | None:
    text = _text(folder / files.limit)
    if not text.isdigit() or int(text) >= _UNLIMITED_BYTES:
        return None
    return int(text) // 1024


def _facts(path: Path) -> dict[str, int]:
    rows = (line.split() for line in _text(path).splitlines())
    return {row[0]: int(row[1]) for row in rows if len(row) == 2}


def _text(path: Path) -> str:
    """Return a file's text; guests and their groups end at any moment."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
