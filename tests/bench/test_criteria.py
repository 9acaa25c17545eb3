"""Criteria: parts of a run, operators, and metrics that have no value."""

from dataclasses import replace

import pytest

from tests.bench.recordings import cpu_recording, note
from virtbalance.bench.criteria import judge, passed
from virtbalance.bench.library import find
from virtbalance.bench.schema import CriterionTable


@pytest.mark.parametrize(
    ("criterion", "holds"),
    [
        (CriterionTable("pin_changes", "<=", 2), True),
        (CriterionTable("pin_changes", "<", 2), False),
        (CriterionTable("pin_changes", "==", 1, from_s=3), True),
        (CriterionTable("pin_changes", "==", 1, to_s=3), True),
        (CriterionTable("pin_changes", ">=", 3), False),
        (CriterionTable("time_to_balance_s", "<=", 1000), False),  # never is not soon
    ],
)
def test_a_criterion(criterion: CriterionTable, holds: bool) -> None:
    (scenario,) = find(["lone"])
    ticks = [note(1.0, {"a": [0]}), note(4.0, {"a": [1]})]
    recording = cpu_recording({"a": [1.0] * 12}, {"a": [0]}, ticks=ticks)
    (judged,) = judge(replace(scenario, criteria=(criterion,)), recording)
    assert judged.passed is holds


def test_without_criteria_nothing_is_passed_or_failed() -> None:
    assert passed(()) is None
