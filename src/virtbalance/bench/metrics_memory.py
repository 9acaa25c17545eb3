"""Memory metrics (memory.md, section 12). Each is computed from a recording and nothing else.

Terms: a guest *needs* what its programs want and what its kernel keeps; *lacking* is what programs
want and the balloon does not leave room for; *entitled* is the weighted max-min share, over true
needs, of what the host can give (its memory without its own use, QEMU's and the reserve): the ideal
with perfect knowledge and no delay. Who gives the reserve away has more than that; what it costs
shows as a breach of the reserve, not here.
"""

from collections.abc import Callable

import numpy as np

from virtbalance.bench.metrics import Better, Metric
from virtbalance.bench.metrics_common import COMMON_METRICS
from virtbalance.bench.recording import Floats, Recording, Taking
from virtbalance.bench.sharing import jain, max_min

_MIB = 1024.0
_GIB = 1024.0 * _MIB
_WORST_SHARE = 0.05
_MET_RATIO = 0.99
_STEP_KIB = 64 * _MIB
"""A rise of the want by this much in one step is a step whose answer is timed."""
_SLACK_KIB = 100 * _MIB
"""What a guest may keep free before it counts as stranded."""


def _performance(recording: Recording) -> Floats:
    """Return every guest's speed in every step, of full speed; NaN where it was not there."""
    done_s = recording.memory.get("performance_s")
    if done_s is None:
        return np.zeros((0, 0))
    return np.asarray(np.clip(done_s / recording.steps_s[:, None], 0.0, 1.0))


def _present(values: Floats) -> Floats:
    return np.asarray(values[~np.isnan(values)])


def _mean_performance(recording: Recording) -> float | None:
    values = _present(_performance(recording))
    return float(values.mean()) if len(values) else None


def _worst_performance(recording: Recording) -> float | None:
    values = np.sort(_present(_performance(recording)))
    if not len(values):
        return None
    return float(values[: max(1, round(_WORST_SHARE * len(values)))].mean())


# Needs


def _kernel(recording: Recording) -> Floats:
    """Return what each guest's kernel keeps for itself."""
    memory = recording.memory
    return np.asarray(memory["actual_kib"] - memory["used_kib"] - memory["usable_kib"])


def _lacking(recording: Recording) -> Floats:
    memory = recording.memory
    room = memory["used_kib"] + memory["usable_kib"]
    return np.asarray(np.maximum(0.0, memory["want_kib"] - room))


def _need(recording: Recording) -> Floats:
    return np.asarray(recording.memory["want_kib"] + _kernel(recording))


def entitled_kib(recording: Recording) -> Floats:
    """Return the ideal sizes, steps x guests; NaN for guests that were not there."""
    need = _need(recording)
    result = np.full(need.shape, np.nan)
    host_kib = recording.facts.memory_kib - reserve_kib(recording.facts.memory_kib)
    for step, row in enumerate(need):
        there = ~np.isnan(row)
        overhead_kib = recording.facts.overhead_kib * there.sum()
        capacity = host_kib - float(recording.other_kib[step]) - overhead_kib
        weights = recording.weights[step][there]
        result[step, there] = max_min(row[there], weights, max(0.0, capacity))
    return result


def _satisfaction(recording: Recording) -> Floats:
    ideal = entitled_kib(recording)
    got = np.minimum(recording.memory["actual_kib"], ideal)
    return np.asarray(got / np.maximum(ideal, 1.0))


def _shortfalls(recording: Recording) -> Floats:
    ideal = entitled_kib(recording)
    lacking = np.nansum(np.maximum(0.0, ideal - recording.memory["actual_kib"]), axis=1)
    return np.asarray(lacking / np.maximum(1.0, np.nansum(ideal, axis=1)) * 100)


def _mean_shortfall(recording: Recording) -> float | None:
    return float(_shortfalls(recording).mean()) if recording.memory else None


def _largest_shortfall(recording: Recording) -> float | None:
    return float(_shortfalls(recording).max(initial=0.0)) if recording.memory else None


def _jain(recording: Recording) -> float | None:
    if not recording.memory:
        return None
    rows = [_present(row) for row in _satisfaction(recording)]
    return float(np.mean([jain(row) for row in rows if len(row)]))


def _envy(recording: Recording) -> float | None:
    """Return how much more, by weight, somebody had than somebody who lacked memory."""
    if not recording.memory:
        return None
    relative = recording.memory["actual_kib"] / recording.weights
    lacking = _lacking(recording) > _MIB
    largest = 0.0
    for step in range(len(relative)):
        if lacking[step].any():
            poorest = np.nanmin(relative[step][lacking[step]])
            largest = max(largest, float(np.nanmax(relative[step]) - poorest))
    return largest / _MIB


def _unmet(recording: Recording) -> float | None:
    if not recording.memory:
        return None
    return float((np.nansum(_lacking(recording), axis=1) * recording.steps_s).sum() / _GIB)


def _stranded(recording: Recording) -> float | None:
    """Return memory free in some guests while others lacked as much."""
    if not recording.memory:
        return None
    free = recording.memory["usable_kib"] - recording.memory["cache_kib"] - _SLACK_KIB
    spare = np.nansum(np.maximum(0.0, free), axis=1)
    lacking = np.nansum(_lacking(recording), axis=1)
    return float((np.minimum(spare, lacking) * recording.steps_s).sum() / _GIB)


def _satisfied_after(recording: Recording) -> list[float]:
    """Return for every step up of a want how long it took until 99 % of it were there."""
    waits = []
    want = recording.memory["want_kib"]
    room = recording.memory["used_kib"] + recording.memory["usable_kib"]
    for guest in range(want.shape[1]):
        for step in range(1, len(want)):
            if not want[step, guest] - want[step - 1, guest] >= _STEP_KIB:
                continue
            met = room[step:, guest] >= _MET_RATIO * want[step:, guest]
            after = int(np.argmax(met)) if met.any() else len(met)
            waits.append(float(recording.steps_s[step : step + after].sum()))
    return waits


def _time_to_satisfy(percent: float) -> Callable[[Recording], float | None]:
    def compute(recording: Recording) -> float | None:
        waits = _satisfied_after(recording) if recording.memory else []
        return float(np.percentile(waits, percent)) if waits else None

    return compute


# Out of memory


def _oom(recording: Recording) -> float | None:
    return float(np.nansum(recording.memory["out_of_memory_s"])) if recording.memory else None


def _first_oom(recording: Recording) -> float | None:
    if not recording.memory:
        return None
    short = np.nansum(recording.memory["out_of_memory_s"], axis=1) > 0
    return float(recording.times_s[int(np.argmax(short))]) if short.any() else None


def _kills(recording: Recording) -> float | None:
    return float(np.nansum(recording.memory["kills"])) if recording.memory else None


def _ended(word: str) -> Callable[[Recording], float | None]:
    def compute(recording: Recording) -> float | None:
        states = [state for state in recording.programs.values() if state is not None]
        return float(states.count(word)) if states else None

    return compute


# The host


def reserve_kib(total_kib: float) -> float:
    """Return what the host keeps for itself (memory.md, section 5)."""
    least = 256 * _MIB if total_kib < 8192 * _MIB else 512 * _MIB
    return max(least, 0.05 * total_kib)


def _host_over(recording: Recording) -> float:
    return float(recording.steps_s[recording.excess_kib > 0].sum())


def _reserve_breach(recording: Recording) -> float:
    short = recording.available_kib < reserve_kib(recording.facts.memory_kib)
    return float(recording.steps_s[short].sum())


def _least_available(recording: Recording) -> float | None:
    values = recording.available_kib
    return float(values.min() / _MIB) if len(values) else None


# Sizes and commands


def _below_minimum(recording: Recording) -> float | None:
    if not recording.memory:
        return None
    minimum = np.array(
        [recording.facts.minimum_kib.get(recording.names[g], 0) for g in recording.guests]
    )
    below = recording.memory["actual_kib"] < minimum - 1
    return float((below.sum(axis=1) * recording.steps_s).sum())


def _smallest(recording: Recording) -> float | None:
    if not recording.memory:
        return None
    return float(np.nanmin(recording.memory["actual_kib"]) / _MIB)


def _largest(recording: Recording) -> float | None:
    if not recording.memory:
        return None
    return float(np.nanmax(recording.memory["actual_kib"]) / _MIB)


def _sum(recording: Recording) -> float | None:
    if not recording.memory:
        return None
    return float(np.nansum(recording.memory["actual_kib"], axis=1).max() / _MIB)


def _last_largest(recording: Recording) -> float | None:
    if not recording.memory:
        return None
    return float(np.nanmax(recording.memory["actual_kib"][-1]) / _MIB)


def _growth_spread(recording: Recording) -> float | None:
    """Return how far balloons of consumers are apart when the first of them stops growing."""
    consumers = [
        i for i, uuid in enumerate(recording.guests) if recording.programs.get(uuid) is not None
    ]
    if len(consumers) < 2:
        return None
    sizes = recording.memory["actual_kib"][:, consumers]
    at = int(np.argmax(sizes.min(axis=1)))
    return float((sizes[at].max() - sizes[at].min()) / sizes[at].max() * 100)


def _hours(recording: Recording) -> float:
    there = ~np.isnan(recording.memory["actual_kib"])
    return float((there.sum(axis=1) * recording.steps_s).sum() / 3600)


def _churn(recording: Recording) -> float | None:
    if not recording.memory or not _hours(recording):
        return None
    moved_kib = np.nansum(np.abs(np.diff(recording.memory["actual_kib"], axis=0)))
    return float(moved_kib / _GIB / _hours(recording))


def _calls(recording: Recording) -> float | None:
    if not recording.memory or not _hours(recording):
        return None
    return sum(tick.resizes for tick in recording.ticks) / _hours(recording)


def _overshoot(recording: Recording) -> float | None:
    """Return by how much balloons exceeded what was needed, headroom apart, mean over time."""
    if not recording.memory:
        return None
    wanted = _need(recording) + recording.memory["cache_kib"] + _SLACK_KIB
    return float(np.nanmean(np.maximum(0.0, recording.memory["actual_kib"] - wanted)) / _MIB)


def _takings(recording: Recording) -> list[Taking]:
    return [taking for tick in recording.ticks for taking in tick.takings]


def _largest_step_excess(recording: Recording) -> float:
    """Return by how much the worst reduction exceeded what acceptance.md allows at once."""
    worst = 0.0
    for taking in _takings(recording):
        usable = taking.usable_kib or 0
        block = max(100 * _MIB, 0.05 * taking.maximum_kib)
        allowed = max(0.5 * usable, min(0.9 * usable, block))
        worst = max(worst, taking.actual_kib - taking.target_kib - allowed)
    return worst / _MIB


def _taken_from_poor(recording: Recording) -> float:
    return float(sum((t.usable_kib or 0) <= 100 * _MIB for t in _takings(recording)))


def _starving_shrunk(recording: Recording) -> float:
    """Count reductions of a guest that said it had less than 5 % of its size usable."""
    return float(sum((t.usable_kib or 0) < 0.05 * t.actual_kib for t in _takings(recording)))


# Drivers


def _stuck_words(recording: Recording) -> tuple[float, float]:
    """Return guest-seconds in which a driver was wrongly taken for stuck, or missed."""
    if not recording.memory or not recording.ticks:
        return 0.0, 0.0
    actual, target = recording.memory["actual_kib"], recording.memory["target_kib"]
    column = {uuid: i for i, uuid in enumerate(recording.guests)}
    false_s = missed_s = 0.0
    said: frozenset[str] = frozenset()
    ticks = iter(recording.ticks)
    tick = next(ticks, None)
    window = max(1, round(10.0 / float(recording.steps_s[0])))
    for step in range(window, len(actual)):
        while tick is not None and tick.at_s <= recording.times_s[step]:
            said, tick = tick.stuck, next(ticks, None)
        # Of guests that came or went meanwhile nothing is said: nan is neither still nor moving.
        moved = np.ptp(actual[step - window : step + 1], axis=0)
        still, moving = moved < _MIB, moved >= _MIB
        asked = np.abs(actual - target)[step - window : step + 1].min(axis=0) > 16 * _MIB
        for uuid, at in column.items():
            really = bool(still[at] and asked[at])
            false_s += recording.steps_s[step] * (uuid in said and moving[at])
            missed_s += recording.steps_s[step] * (really and uuid not in said)
    return false_s, missed_s


def _false_stuck(recording: Recording) -> float:
    return _stuck_words(recording)[0]


def _missed_stuck(recording: Recording) -> float:
    return _stuck_words(recording)[1]


MEMORY_METRICS = (
    Metric(
        "performance_mean",
        "ratio",
        Better.HIGHER,
        "speed of guests, of full speed",
        _mean_performance,
        headline=True,
        significant=0.002,
    ),
    Metric(
        "performance_worst",
        "ratio",
        Better.HIGHER,
        "the same over the worst 5 % of guest-seconds",
        _worst_performance,
        headline=True,
        significant=0.005,
    ),
    Metric("unmet_gib_s", "GiB s", Better.LOWER, "memory wanted and not there", _unmet),
    Metric(
        "oom_s",
        "s",
        Better.LOWER,
        "guest-seconds out of memory (no swap left)",
        _oom,
        headline=True,
        significant=0.5,
    ),
    Metric("first_oom_s", "s", Better.HIGHER, "when that first happened", _first_oom),
    Metric("kills", "kills", Better.LOWER, "programs killed because too much was taken", _kills),
    Metric(
        "host_over_s",
        "s",
        Better.LOWER,
        "seconds in which more memory was in use than the host has",
        _host_over,
        headline=True,
        significant=0.5,
    ),
    Metric(
        "reserve_breach_s",
        "s",
        Better.LOWER,
        "seconds in which the host had less available than its reserve",
        _reserve_breach,
    ),
    Metric(
        "host_available_mib",
        "MiB",
        Better.HIGHER,
        "least MemAvailable of the host",
        _least_available,
    ),
    Metric(
        "shortfall_percent",
        "%",
        Better.LOWER,
        "missing to the weighted max-min ideal, mean over time",
        _mean_shortfall,
        headline=True,
        significant=0.05,
    ),
    Metric("shortfall_max_percent", "%", Better.LOWER, "the same, largest", _largest_shortfall),
    Metric(
        "jain",
        "index",
        Better.HIGHER,
        "Jain's index of got/entitled, mean over time",
        _jain,
        headline=True,
        significant=0.001,
    ),
    Metric("envy_mib", "MiB", Better.LOWER, "most that others had more than one who lacked", _envy),
    Metric("below_minimum_s", "s", Better.LOWER, "guest-seconds below the minimum", _below_minimum),
    Metric(
        "stranded_gib_s",
        "GiB s",
        Better.LOWER,
        "free in some guests while others lacked",
        _stranded,
    ),
    Metric(
        "satisfy_p50_s",
        "s",
        Better.LOWER,
        "until 99 % of a suddenly risen want were there, median",
        _time_to_satisfy(50),
    ),
    Metric("satisfy_p95_s", "s", Better.LOWER, "the same, 95th", _time_to_satisfy(95)),
    Metric("churn_gib_h", "GiB/h", Better.LOWER, "balloon movement for each guest-hour", _churn),
    Metric("calls_h", "1/h", Better.LOWER, "balloon targets set for each guest-hour", _calls),
    Metric("overshoot_mib", "MiB", Better.LOWER, "held beyond need, mean", _overshoot),
    Metric("smallest_mib", "MiB", Better.HIGHER, "smallest balloon of any guest", _smallest),
    Metric("largest_mib", "MiB", Better.NEITHER, "largest balloon of any guest", _largest),
    Metric("sum_mib", "MiB", Better.NEITHER, "largest sum of all balloons", _sum),
    Metric("last_largest_mib", "MiB", Better.NEITHER, "the same at the end", _last_largest),
    Metric(
        "growth_spread_percent",
        "%",
        Better.LOWER,
        "how far consumers' balloons are apart at the end of growth",
        _growth_spread,
    ),
    Metric(
        "step_excess_mib",
        "MiB",
        Better.LOWER,
        "largest reduction beyond what may be taken at once",
        _largest_step_excess,
    ),
    Metric(
        "taken_from_poor",
        "times",
        Better.LOWER,
        "reductions of a guest with 100 MiB or less usable",
        _taken_from_poor,
    ),
    Metric(
        "starving_shrunk",
        "times",
        Better.LOWER,
        "reductions of a guest with less than 5 % of its size usable",
        _starving_shrunk,
    ),
    Metric("died_early", "guests", Better.LOWER, "programs that died", _ended("died early")),
    Metric(
        "limit_reached",
        "guests",
        Better.HIGHER,
        "programs that got all their guest may have",
        _ended("limit reached"),
    ),
    Metric("false_stuck_s", "s", Better.LOWER, "moving drivers taken for stuck", _false_stuck),
    Metric("missed_stuck_s", "s", Better.LOWER, "stuck drivers not noticed", _missed_stuck),
    *COMMON_METRICS,
)
