"""Metrics that both roles have: failures of a policy, refusals, foreign hands."""

from virtbalance.bench.metrics import Better, Metric
from virtbalance.bench.recording import Recording

_NONSENSE = frozenset({"nonsense", "unknown", "empty", "foreign", "duplicate"})


def _events(recording: Recording, kind: str) -> float:
    return float(sum(tick.events.get(kind, 0) for tick in recording.ticks))


def _policy_failures(recording: Recording) -> float:
    return _events(recording, "policy-failed") + _events(recording, "policy-overrun")


def _nonsense(recording: Recording) -> float:
    return float(
        sum(
            count
            for tick in recording.ticks
            for rule, count in tick.amendments.items()
            if rule in _NONSENSE
        )
    )


def _refused(recording: Recording) -> float:
    return float(sum(tick.refused for tick in recording.ticks))


def _released(recording: Recording) -> float:
    return float(len({uuid for tick in recording.ticks for uuid in tick.released}))


def _ticks(recording: Recording) -> float:
    return float(len(recording.ticks))


COMMON_METRICS = (
    Metric(
        "policy_failures",
        "ticks",
        Better.LOWER,
        "decisions that raised or took too long; the run went on doing nothing",
        _policy_failures,
    ),
    Metric(
        "nonsense",
        "answers",
        Better.LOWER,
        "answers that name no such guest or vCPU, no CPU, a foreign CPU, or no size",
        _nonsense,
    ),
    Metric("refused", "actions", Better.LOWER, "actions the host did not carry out", _refused),
    Metric(
        "guests_released",
        "guests",
        Better.NEITHER,
        "guests left alone for good because somebody else kept changing them",
        _released,
    ),
    Metric("ticks", "ticks", Better.NEITHER, "decisions made", _ticks),
)
