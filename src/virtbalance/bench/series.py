"""What the report draws of a run: curves on at most some hundred points, rounded."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from virtbalance.bench.metrics_cpu import pcpu_use
from virtbalance.bench.metrics_memory import entitled_kib
from virtbalance.bench.recording import Floats, Recording
from virtbalance.bench.schema import Scenario
from virtbalance.bench.sharing import jain
from virtbalance.model.guest import RoleName, VcpuKey

_POINTS = 400
_MANY_VCPUS = 80
"""Above this single vCPUs are not drawn."""
_MIB = 1024.0


def series_of(recording: Recording, scenario: Scenario) -> dict[str, Any]:
    """Return the curves of a run."""
    stride = max(1, -(-len(recording.times_s) // _POINTS))
    series: dict[str, Any] = {
        "role": str(scenario.role),
        "duration_s": scenario.duration_s,
        "times_s": _rounded(recording.times_s[stride - 1 :: stride]),
        "events": [
            {"at_s": event.at_s, "text": f"{event.kind} {event.guest or event.cpu or ''}".strip()}
            for event in scenario.events
            if event.every_s is None
        ],
    }
    if scenario.role is RoleName.CPU:
        return series | _cpu(recording, stride)
    return series | _memory(recording, stride)


def _cpu(recording: Recording, stride: int) -> dict[str, Any]:
    use = pcpu_use(recording)
    series: dict[str, Any] = {
        "cpus": list(recording.cpus),
        "use": _thinned(use, stride),
        "fairness": _thinned(_fairness(recording), stride),
        "pins": [[round(tick.at_s, 2), len(tick.pins)] for tick in recording.ticks if tick.pins],
    }
    if len(recording.vcpus) <= _MANY_VCPUS:
        columns = {cpu: i for i, cpu in enumerate(recording.cpus)}
        keys = sorted(recording.vcpus, key=lambda key: _in_words(recording, key))
        order = [recording.vcpus.index(key) for key in keys]
        series["vcpus"] = ["/".join(map(str, _in_words(recording, key)[1:])) for key in keys]
        series["run"] = _thinned(np.nan_to_num(recording.run[:, order]), stride)
        series["homes"] = [
            [_home(masks.get(key), columns) for key in keys]
            for masks in recording.masks[stride - 1 :: stride]
        ]
    return series


def _in_words(recording: Recording, key: VcpuKey) -> tuple[int, str, int]:
    """Return a vCPU's guest and number in an order people expect: g2 before g10."""
    name = recording.names[key.uuid]
    return len(name), name, key.vcpu


def _home(mask: frozenset[int] | None, columns: dict[int, int]) -> int:
    """Return the column of the one pCPU it may run on; -1: several, -2: it is not there."""
    if mask is None:
        return -2
    return columns[next(iter(mask))] if len(mask) == 1 else -1


def _fairness(recording: Recording) -> Floats:
    """Return Jain's index of run over demand in every step."""
    demand = np.nan_to_num(recording.demand)
    run = np.nan_to_num(recording.work)
    rows = []
    for got, wanted in zip(run, demand, strict=True):
        busy = wanted > 0.01
        rows.append(jain(np.minimum(1.0, got[busy] / wanted[busy])))
    return np.array(rows)


def _memory(recording: Recording, stride: int) -> dict[str, Any]:
    memory = recording.memory
    ideal = entitled_kib(recording)
    satisfied = np.minimum(memory["actual_kib"], ideal) / np.maximum(ideal, 1.0)
    fairness = np.array([jain(row[~np.isnan(row)]) for row in satisfied])
    names = [recording.names[uuid] for uuid in recording.guests]
    order = sorted(range(len(names)), key=lambda at: (len(names[at]), names[at]))
    memory = {name: values[:, order] for name, values in memory.items()}
    return {
        "guests": [names[at] for at in order],
        "host_mib": recording.facts.memory_kib / _MIB,
        "other_mib": _thinned(recording.other_kib / _MIB, stride),
        "available_mib": _thinned(recording.available_kib / _MIB, stride),
        "used_mib": _thinned((memory["actual_kib"] - memory["usable_kib"]) / _MIB, stride),
        "usable_mib": _thinned(memory["usable_kib"] / _MIB, stride),
        "actual_mib": _thinned(memory["actual_kib"] / _MIB, stride),
        "target_mib": _thinned(memory["target_kib"] / _MIB, stride),
        "want_mib": _thinned(memory["want_kib"] / _MIB, stride),
        "performance": _thinned(_mean_speed(recording), stride),
        "fairness": _thinned(fairness, stride),
        "resizes": [[round(t.at_s, 2), t.resizes] for t in recording.ticks if t.resizes],
    }


def _mean_speed(recording: Recording) -> Floats:
    """Return the guests' mean speed in every step; NaN where none is known."""
    speed = recording.memory["performance_s"] / recording.steps_s[:, None]
    known = ~np.isnan(speed)
    total = np.where(known, speed, 0.0).sum(axis=1)
    return np.asarray(np.where(known.any(axis=1), total / np.maximum(1, known.sum(axis=1)), np.nan))


def _thinned(values: Floats, stride: int) -> list[Any]:
    """Return means over ``stride`` steps; NaN becomes ``None``."""
    count = len(values) // stride
    kept = values[: count * stride].reshape(count, stride, *values.shape[1:])
    means = np.where(np.isnan(kept).any(axis=1), np.nan, np.nan_to_num(kept).mean(axis=1))
    if means.ndim == 1:
        return _rounded(means)
    return [_rounded(row) for row in means]


def _rounded(values: Floats | Sequence[float]) -> list[float | None]:
    return [None if np.isnan(value) else round(float(value), 3) for value in values]
