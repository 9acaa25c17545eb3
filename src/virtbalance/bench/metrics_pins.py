"""Metrics of pins: how many there were, how far they went, how many were undone, what is left."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from virtbalance.bench.metrics import Better, Metric
from virtbalance.bench.recording import Mask, Recording
from virtbalance.model.guest import VcpuKey
from virtbalance.model.topology import Pcpu

_UNDONE_TICKS = 10


def _changes(recording: Recording) -> Iterator[tuple[int, VcpuKey, Mask, Mask | None]]:
    """Yield tick number, vCPU, new and former affinity of every pin."""
    former: dict[VcpuKey, Mask] = {}
    for number, tick in enumerate(recording.ticks):
        step = int(np.searchsorted(recording.times_s, tick.at_s + 1e-6)) - 1
        before = recording.masks[step] if step >= 0 else {}
        for key, mask in tick.pins.items():
            yield number, key, mask, former.get(key, before.get(key))
            former[key] = mask


def _node_moves(recording: Recording) -> float | None:
    """Return how often the guest that moved most went from one NUMA node to another.

    A guest is on the node that alone has all CPUs of more than half of its vCPUs; while it is on
    its way it is on none.
    """
    by_id = recording.facts.topology.by_id
    last: dict[str, int] = {}
    moves: dict[str, int] = dict.fromkeys(recording.guests, 0)
    for masks in recording.masks:
        for uuid, node in _nodes_of_guests(masks, by_id):
            moves[uuid] += last.get(uuid, node) != node
            last[uuid] = node
    return float(max(moves.values())) if moves else None


def _nodes_of_guests(
    masks: Mapping[VcpuKey, Mask], by_id: Mapping[int, Pcpu]
) -> Iterator[tuple[str, int]]:
    counts: dict[str, Counter[int | None]] = {}
    for key, mask in masks.items():
        nodes = {by_id[cpu].node for cpu in mask}
        counts.setdefault(key.uuid, Counter())[nodes.pop() if len(nodes) == 1 else None] += 1
    for uuid, count in counts.items():
        node, most = count.most_common(1)[0]
        if node is not None and 2 * most > count.total():
            yield uuid, node


def _pin_changes(recording: Recording) -> float:
    return float(sum(len(tick.pins) for tick in recording.ticks))


def _unpinned(recording: Recording) -> float | None:
    """Count vCPUs that may run on several pCPUs at the end."""
    if not recording.masks:
        return None
    return float(sum(len(mask) > 1 for mask in recording.masks[-1].values()))


def _pins_interval(recording: Recording) -> float | None:
    return _pin_changes(recording) / len(recording.ticks) if recording.ticks else None


def _pins_undone(recording: Recording) -> float:
    """Count pins that put a vCPU back where it was within ten decisions."""
    history: dict[VcpuKey, list[tuple[int, Mask]]] = {}
    undone = 0
    for number, key, mask, _ in _changes(recording):
        past = history.setdefault(key, [])
        undone += any(m == mask and number - n <= _UNDONE_TICKS for n, m in past[:-1])
        past.append((number, mask))
    return float(undone)


def _level_changes(level: str) -> Callable[[Recording], float]:
    """Return a count of pins that take a vCPU to another node, or cache of its node."""

    def compute(recording: Recording) -> float:
        by_id = recording.facts.topology.by_id
        count = 0
        for _, _, mask, former in _changes(recording):
            if former is None:
                continue
            now = {(by_id[c].node, by_id[c].llc) for c in mask}
            was = {(by_id[c].node, by_id[c].llc) for c in former}
            crossed = not {n for n, _ in now} & {n for n, _ in was}
            count += crossed if level == "node" else (not crossed and not now & was)
        return float(count)

    return compute


PIN_METRICS = (
    Metric(
        "pin_changes",
        "pins",
        Better.LOWER,
        "affinities changed; steps through a union are not counted",
        _pin_changes,
        headline=True,
        significant=0.5,
    ),
    Metric("pins_interval", "pins", Better.LOWER, "the same for each decision", _pins_interval),
    Metric(
        "pins_undone",
        "pins",
        Better.LOWER,
        "pins that put a vCPU back where it was within ten decisions",
        _pins_undone,
    ),
    Metric(
        "unpinned_vcpus",
        "vCPUs",
        Better.NEITHER,
        "vCPUs that may run on several pCPUs at the end",
        _unpinned,
    ),
    Metric("pins_cache", "pins", Better.LOWER, "to another cache", _level_changes("cache")),
    Metric(
        "node_moves",
        "moves",
        Better.LOWER,
        "moves to another NUMA node of the guest that moved most",
        _node_moves,
    ),
    Metric("pins_node", "pins", Better.LOWER, "to another NUMA node", _level_changes("node")),
)
