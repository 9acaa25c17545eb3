"""CPU metrics (cpu.md, section 15). Each is computed from a recording and nothing else.

Terms: *use* of a pCPU is the guests' run time on it; *demand* is what a vCPU would use of a free
pCPU, arrears of arrivals included; *entitled* is its weighted max-min share of the whole host;
*got* is work done, in pCPUs of speed 1.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from virtbalance.bench.metrics import Better, Metric
from virtbalance.bench.metrics_common import COMMON_METRICS
from virtbalance.bench.metrics_pins import PIN_METRICS
from virtbalance.bench.recording import Floats, Mask, Recording
from virtbalance.bench.sharing import best_partition, entitled, filled, jain
from virtbalance.model.guest import VcpuKey

SHORTFALL, REGRET = "shortfall_percent", "regret_points"

_BLOCK_S = 10.0
"""pCPU use is looked at as the mean over this long."""
_EVEN_POINTS, _EVEN_RELATIVE = 5.0, 0.05
_WANTING = 0.02
"""Who is entitled to less in a step is not asked how satisfied it is: a few milliseconds decide."""
_QUIET_USE = 0.03
"""With less mean use than this a host is idle, and evenness relative to it says nothing."""


# Use of pCPUs


def pcpu_use(recording: Recording) -> Floats:
    """Return the guests' use of every pCPU, steps x pCPUs.

    What a vCPU that may run on several got is spread over them in proportion to how busy they
    were beyond the pinned vCPUs.
    """
    use = np.zeros((len(recording.times_s), len(recording.cpus)))
    at = {cpu: column for column, cpu in enumerate(recording.cpus)}
    run = np.nan_to_num(recording.run)
    for step, masks in enumerate(recording.masks):
        wide = []
        for column, key in enumerate(recording.vcpus):
            mask = masks.get(key)
            if mask and len(mask) == 1:
                use[step, at[next(iter(mask))]] += run[step, column]
            elif mask:
                wide.append((column, mask))
        busy = np.nan_to_num(recording.busy[step])
        left = np.maximum(busy - use[step], 0.0)
        for column, mask in wide:
            where = [at[cpu] for cpu in sorted(mask) if cpu in at]
            share = left[where] if left[where].sum() > 0 else np.ones(len(where))
            use[step, where] += run[step, column] * share / share.sum()
    return use


def _online(recording: Recording) -> npt.NDArray[np.intp]:
    """Return the columns of pCPUs that were there at the end."""
    usable = recording.facts.topology.usable
    return np.array([i for i, cpu in enumerate(recording.cpus) if cpu in usable], np.intp)


def _blocks(recording: Recording, use: Floats) -> Floats:
    """Return mean use over blocks of ten seconds, the last ending with the recording."""
    if not len(use):
        return np.zeros((0, use.shape[1]))
    length = max(1, min(len(use), round(_BLOCK_S / float(recording.steps_s[0]))))
    count = max(1, len(use) // length)
    tail = use[len(use) - count * length :]
    return np.asarray(tail.reshape(count, length, -1).mean(axis=1))


def _sd_points(recording: Recording) -> float | None:
    blocks = _blocks(recording, pcpu_use(recording)[:, _online(recording)])
    return float(blocks.std(axis=1).mean() * 100) if len(blocks) else None


def _sd_relative(recording: Recording) -> float | None:
    blocks = _blocks(recording, pcpu_use(recording)[:, _online(recording)])
    if not len(blocks):
        return None
    mean = blocks.mean(axis=1)
    relative = np.where(mean > _QUIET_USE, blocks.std(axis=1) / np.maximum(mean, 1e-9), 0.0)
    return float(relative.mean())


def _gap_points(recording: Recording) -> float | None:
    blocks = _blocks(recording, pcpu_use(recording)[:, _online(recording)])
    if not len(blocks):
        return None
    return max(0.0, float((blocks[-1].max() - _best_height(recording)) * 100))


def _best_height(recording: Recording) -> float:
    """Return the use of the fullest pCPU under the best partition of the last demands."""
    length = max(1, round(_BLOCK_S / float(recording.steps_s[0])))
    demand = recording.demand[-length:]
    there = ~np.isnan(demand).all(axis=0)
    loads = np.nanmean(demand[:, there], axis=0) if there.any() else np.zeros(0)
    return min(1.0, best_partition([float(x) for x in loads if x > 0], len(_online(recording))))


# Time to balance


def _time_until(recording: Recording, good: Callable[[Floats], bool]) -> float | None:
    """Return the time from which on every mean of ten seconds is good; ``None``: never."""
    use = pcpu_use(recording)[:, _online(recording)]
    length = max(1, round(_BLOCK_S / float(recording.steps_s[0]))) if len(use) else 1
    if len(use) < length:
        return None
    since = None
    for first in reversed(range(len(use) - length + 1)):
        if not good(use[first : first + length].mean(axis=0)):
            break
        since = first
    if since is None:
        return None
    began_s = float(recording.times_s[0] - recording.steps_s[0])
    return float(recording.times_s[since] - recording.steps_s[since]) - began_s


def _time_to_balance(recording: Recording) -> float | None:
    return _time_until(recording, _is_even)


def _is_even(use: Floats) -> bool:
    deviation, mean = float(use.std()), float(use.mean())
    return deviation * 100 <= _EVEN_POINTS and deviation <= _EVEN_RELATIVE * max(mean, _QUIET_USE)


def _time_to_best(recording: Recording) -> float | None:
    if not len(recording.times_s):
        return None
    height = _best_height(recording)
    return _time_until(recording, lambda use: (float(use.max()) - height) * 100 <= _EVEN_POINTS)


# Fairness


class _Fairness:
    """Got and entitled of every vCPU in every step."""

    def __init__(self, recording: Recording) -> None:
        column = {uuid: i for i, uuid in enumerate(recording.guests)}
        owners = np.array([column[key.uuid] for key in recording.vcpus], np.int64)
        demand = np.nan_to_num(recording.demand)
        there = ~np.isnan(recording.work) & ~np.isnan(recording.demand)
        weights = np.nan_to_num(recording.weights, nan=1.0)
        capacity = host_capacity(recording)
        rows = [
            entitled(np.where(there[step], demand[step], 0.0), owners, weights[step], capacity)
            for step in range(len(demand))
        ]
        self.entitled = np.array(rows).reshape(demand.shape)
        self.got = np.where(there, np.nan_to_num(recording.work), 0.0)
        self.wanting = there & (self.entitled > _WANTING)
        self.steps_s = recording.steps_s

    @property
    def satisfaction(self) -> Floats:
        """Got of what is entitled, 1 at most; NaN for who wants nothing."""
        ratio = np.minimum(1.0, self.got / np.maximum(self.entitled, 1e-9))
        return np.where(self.wanting, ratio, np.nan)

    def totals(self) -> tuple[Floats, Floats]:
        """Return got and entitled of every vCPU over the whole recording, in pCPU seconds."""
        return self.steps_s @ self.got, self.steps_s @ self.entitled


@lru_cache(maxsize=1)
def _fairness(recording: Recording) -> _Fairness:
    return _Fairness(recording)


def host_capacity(recording: Recording) -> float:
    """Return what all pCPUs can do together, full SMT pairs included."""
    return sum(together for _, _, together in _cores(recording))


def _jain(recording: Recording) -> float | None:
    satisfaction = _fairness(recording).satisfaction
    rows = [row[~np.isnan(row)] for row in satisfaction]
    return float(np.mean([jain(row) for row in rows if len(row)])) if rows else None


def _jain_run(recording: Recording) -> float | None:
    got, owed = _fairness(recording).totals()
    wanting = owed > 1e-6
    return jain(got[wanting] / owed[wanting]) if wanting.any() else None


def _max_min_error(recording: Recording) -> float | None:
    got, owed = _fairness(recording).totals()
    return float(np.abs(got - owed).sum() / (2 * owed.sum()) * 100) if owed.sum() else None


def _shortfall(recording: Recording) -> float | None:
    fairness = _fairness(recording)
    owed = fairness.entitled.sum()
    lacking = np.maximum(0.0, fairness.entitled - fairness.got).sum()
    return float(lacking / owed * 100) if owed else None


def _misplaced(recording: Recording) -> float | None:
    """Return the entitlement that lies on pCPUs beyond what they can do, in % of all."""
    owed = _fairness(recording).entitled
    cores = _cores(recording)
    beyond = sum(
        _beyond(_laid_out(row, masks, recording), cores)
        for row, masks in zip(owed, recording.masks, strict=True)
    )
    total = float(owed.sum())
    return beyond / total * 100 if total else None


Core = tuple[npt.NDArray[np.intp], Floats, float]
"""Columns of its pCPUs, what each can do alone, and what they can do together."""


def _cores(recording: Recording) -> tuple[Core, ...]:
    topology, smt_ratio = recording.facts.topology, recording.facts.smt_ratio
    columns: dict[int, list[int]] = {}
    for column, cpu in enumerate(recording.cpus):
        if cpu in topology.usable:
            columns.setdefault(topology.by_id[cpu].core, []).append(column)
    cores = []
    for here in columns.values():
        speeds = np.array([topology.by_id[recording.cpus[c]].speed_ratio for c in here])
        together = float(speeds.sum()) * (1.0 if len(here) == 1 else smt_ratio)
        cores.append((np.array(here, np.intp), speeds, together))
    return tuple(cores)


def _beyond(load: Floats, cores: Sequence[Core]) -> float:
    return sum(
        max(
            float(np.maximum(0.0, load[here] - speeds).sum()),
            float(load[here].sum()) - together,
            0.0,
        )
        for here, speeds, together in cores
    )


def _laid_out(owed: Floats, masks: Mapping[VcpuKey, Mask], recording: Recording) -> Floats:
    """Return the load of each pCPU; who may run on several fills up the lowest, narrow masks first.

    That is the best the kernel could do where masks hold each other or have nothing in common.
    """
    columns = {cpu: column for column, cpu in enumerate(recording.cpus)}
    wanted: dict[Mask, float] = {}
    for key, share in zip(recording.vcpus, owed.tolist(), strict=True):
        if share > 0 and key in masks:
            wanted[masks[key]] = wanted.get(masks[key], 0.0) + share
    load = np.zeros(len(columns))
    for mask, amount in sorted(wanted.items(), key=lambda item: (len(item[0]), sorted(item[0]))):
        where = [columns[cpu] for cpu in sorted(mask) if cpu in columns]
        if where:
            load[where] = filled(load[where], amount)
    return load


def _worst(recording: Recording) -> Floats:
    satisfaction = _fairness(recording).satisfaction
    rows = satisfaction[~np.isnan(satisfaction).all(axis=1)]
    return np.asarray(np.nanmin(rows, axis=1)) if len(rows) else np.zeros(0)


def _worst_mean(recording: Recording) -> float | None:
    worst = _worst(recording)
    return float(worst.mean()) if len(worst) else None


def _worst_p1(recording: Recording) -> float | None:
    worst = _worst(recording)
    return float(np.percentile(worst, 1)) if len(worst) else None


def _throughput(recording: Recording) -> float | None:
    fairness = _fairness(recording)
    owed = fairness.entitled.sum()
    return float(fairness.got.sum() / owed) if owed else None


# Load, idleness, waiting


def _makespan_ratio(recording: Recording) -> float | None:
    """Return the mean of the fullest pCPU's demand over the least it can be."""
    columns = {cpu: i for i, cpu in enumerate(recording.cpus)}
    pcpus = len(_online(recording))
    ratios = []
    for step, masks in enumerate(recording.masks):
        load = np.zeros(len(columns))
        demand = np.nan_to_num(recording.demand[step])
        for column, key in enumerate(recording.vcpus):
            where = [columns[cpu] for cpu in masks.get(key, ()) if cpu in columns]
            if where:
                load[where] += demand[column] / len(where)
        bound = max(demand.sum() / max(1, pcpus), demand.max(initial=0.0))
        if bound > _QUIET_USE:
            ratios.append(load.max() / bound)
    return float(np.mean(ratios)) if ratios else None


def _idle_while_waiting(recording: Recording) -> float | None:
    if not len(recording.times_s):
        return None
    online = _online(recording)
    idle = np.maximum(0.0, 1.0 - np.nan_to_num(recording.busy[:, online])).sum(axis=1)
    waiting = np.nan_to_num(recording.wait).sum(axis=1)
    return float(np.minimum(idle, waiting).mean() / len(online) * 100)


def _other_work(recording: Recording) -> float | None:
    if not len(recording.times_s):
        return None
    online = _online(recording)
    busy = np.nan_to_num(recording.busy[:, online]).sum(axis=1)
    other = np.maximum(0.0, busy - np.nan_to_num(recording.run).sum(axis=1))
    return float(other.mean() / len(online) * 100)


def _wait_percentile(percent: float) -> Callable[[Recording], float | None]:
    def compute(recording: Recording) -> float | None:
        waits = recording.wait[~np.isnan(recording.wait)]
        return float(np.percentile(waits, percent)) if len(waits) else None

    return compute


def _remote_percent(recording: Recording) -> float | None:
    """Return the share of run time got away from the node that has the guest's memory."""
    nodes = recording.facts.memory_nodes
    by_id = recording.facts.topology.by_id
    remote = total = 0.0
    for step, masks in enumerate(recording.masks):
        for column, key in enumerate(recording.vcpus):
            node = nodes.get(recording.names[key.uuid])
            ran = recording.run[step, column]
            mask = masks.get(key)
            if node is None or not mask or np.isnan(ran):
                continue
            away = sum(by_id[cpu].node != node for cpu in mask) / len(mask)
            remote += float(ran) * away
            total += float(ran)
    return remote / total * 100 if total else None


def _demand_error(recording: Recording) -> float | None:
    """Return the mean distance of the estimator's demands from the true ones."""
    at = {key: column for column, key in enumerate(recording.vcpus)}
    errors = []
    for tick in recording.ticks:
        step = int(np.searchsorted(recording.times_s, tick.at_s - 1e-6))
        if step >= len(recording.times_s):
            continue
        true = recording.demand[step]
        errors += [abs(value - true[at[key]]) for key, value in tick.demand.items() if key in at]
    known = [error for error in errors if not np.isnan(error)]
    return float(np.mean(known)) if known else None


CPU_METRICS = (
    Metric(
        SHORTFALL,
        "%",
        Better.LOWER,
        "entitlement not delivered, of all entitlement",
        _shortfall,
        headline=True,
        significant=0.05,
    ),
    Metric(
        REGRET,
        "points",
        Better.LOWER,
        "shortfall above the oracle's under the same seed; in tables with the oracle",
        None,
        headline=True,
        significant=0.05,
    ),
    Metric(
        "misplaced_percent",
        "%",
        Better.LOWER,
        "entitlement on pCPUs that can't deliver it, of all: what placement alone loses",
        _misplaced,
        significant=0.05,
    ),
    Metric(
        "worst_mean",
        "ratio",
        Better.HIGHER,
        "got of entitled of the worst vCPU, mean over time",
        _worst_mean,
        headline=True,
        significant=0.01,
    ),
    Metric("worst_p1", "ratio", Better.HIGHER, "the same, first percentile over time", _worst_p1),
    Metric(
        "jain_run",
        "index",
        Better.HIGHER,
        "Jain's index of got/entitled over the whole run",
        _jain_run,
        headline=True,
        significant=0.001,
    ),
    Metric("jain", "index", Better.HIGHER, "Jain's index of each step, mean over time", _jain),
    Metric(
        "max_min_error_percent",
        "%",
        Better.LOWER,
        "distance from weighted max-min shares over the run: sum |got - entitled| / 2 sum entitled",
        _max_min_error,
    ),
    Metric(
        "throughput_ratio",
        "ratio",
        Better.HIGHER,
        "work done of all entitlement",
        _throughput,
        significant=0.005,
    ),
    Metric(
        "pcpu_sd_points",
        "points",
        Better.LOWER,
        "population standard deviation of pCPU use, mean of 10 s",
        _sd_points,
        headline=True,
        significant=0.2,
    ),
    Metric("pcpu_sd_relative", "ratio", Better.LOWER, "the same, of mean use", _sd_relative),
    Metric(
        "partition_gap_points",
        "points",
        Better.LOWER,
        "use of the fullest pCPU above that of the best partition found, last 10 s",
        _gap_points,
    ),
    Metric(
        "makespan_ratio",
        "ratio",
        Better.LOWER,
        "demand on the fullest pCPU over its lower bound, mean over time",
        _makespan_ratio,
    ),
    Metric(
        "time_to_balance_s",
        "s",
        Better.LOWER,
        "until pCPU use is even for good: 5 points and 5 % of the mean",
        _time_to_balance,
        headline=True,
        significant=0.5,
    ),
    Metric(
        "time_to_best_s",
        "s",
        Better.LOWER,
        "until the fullest pCPU is within 5 points of the best partition for good",
        _time_to_best,
    ),
    Metric(
        "idle_while_waiting_percent",
        "%",
        Better.LOWER,
        "capacity idle in a step in which somebody waited",
        _idle_while_waiting,
    ),
    Metric(
        "other_work_percent",
        "%",
        Better.LOWER,
        "pCPU time used by anything but vCPUs",
        _other_work,
    ),
    Metric(
        "wait_p50_ratio",
        "ratio",
        Better.LOWER,
        "time a vCPU waited runnable, median over vCPUs and steps",
        _wait_percentile(50),
    ),
    Metric("wait_p99_ratio", "ratio", Better.LOWER, "the same, 99th", _wait_percentile(99)),
    Metric(
        "remote_percent",
        "%",
        Better.LOWER,
        "run time away from the NUMA node that has the guest's memory",
        _remote_percent,
    ),
    Metric(
        "demand_error",
        "pCPUs",
        Better.LOWER,
        "distance of estimated from true demand, mean over vCPUs and decisions",
        _demand_error,
    ),
    *PIN_METRICS,
    *COMMON_METRICS,
)
