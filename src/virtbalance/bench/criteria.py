"""Whether a run passed: a scenario's criteria against its recording."""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from virtbalance.bench.metrics import computed
from virtbalance.bench.recording import Recording
from virtbalance.bench.schema import CriterionTable, Scenario
from virtbalance.control.config import ConfigError

_COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
    "==": operator.eq,
}
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Judged:
    """One criterion and what came of it."""

    text: str
    value: float | None
    passed: bool


def check_criteria(scenario: Scenario) -> None:
    """Raise ``ConfigError`` if a criterion names a metric that does not exist."""
    known = computed(scenario.role)
    for criterion in scenario.criteria:
        if criterion.metric not in known:
            raise ConfigError(
                f"{scenario.name}: criteria: no metric {criterion.metric!r};"
                f" there are: {', '.join(known)}"
            )


def judge(scenario: Scenario, recording: Recording) -> tuple[Judged, ...]:
    """Return every criterion's verdict. A metric that has no value fails it."""
    return tuple(_judge(scenario, criterion, recording) for criterion in scenario.criteria)


def _judge(scenario: Scenario, criterion: CriterionTable, recording: Recording) -> Judged:
    from_s = scenario.measure_from_s if criterion.from_s is None else criterion.from_s
    part = recording.between(from_s, criterion.to_s)
    value = computed(scenario.role)[criterion.metric](part) if len(part.times_s) else None
    return Judged(
        text=criterion_text(criterion),
        value=value,
        passed=value is not None and _holds(value, criterion),
    )


def _holds(value: float, criterion: CriterionTable) -> bool:
    slack = 0.0
    if criterion.op in ("<=", ">="):  # 0.1 + 0.2 is not above 0.3
        slack = _ROUNDING * max(1.0, abs(criterion.value))
    low = value - slack if criterion.op == "<=" else value + slack
    return _COMPARE[criterion.op](low, criterion.value)


def criterion_text(criterion: CriterionTable) -> str:
    """Return a criterion for people."""
    text = f"{criterion.metric} {criterion.op} {criterion.value:g}"
    if criterion.from_s is not None:
        text += f" from {criterion.from_s:g} s"
    if criterion.to_s is not None:
        text += f" to {criterion.to_s:g} s"
    return text


def passed(judged: Sequence[Judged]) -> bool | None:
    """Return whether all criteria hold; ``None`` if there is none."""
    return all(one.passed for one in judged) if judged else None
