"""One question of the search: what is tried, what it gains for sure, and what it must exceed."""

from dataclasses import replace

import pytest

from tests.cpu.estimates import estimate_of, vcpu
from virtbalance.cpu.board import NOBODY, Board
from virtbalance.cpu.replay import recorded
from virtbalance.cpu.search import Change, Search, Trial
from virtbalance.model.cpu_estimate import CpuEstimate


def trials(estimate: CpuEstimate) -> list[Trial]:
    record = recorded(estimate)
    search = Search(Board(estimate, record.readings), record.lengths, 2.0, 0.003)
    return list(search.trials())


def test_a_clear_move_passes_at_once() -> None:
    crowd = [replace(vcpu(f"web{i}", 0.46, 0), steady_s=20.0) for i in range(1, 5)]
    (trial,) = trials(estimate_of(2, *crowd))
    assert trial.change == Change(moved=0, back=NOBODY, source=0, target=1)
    assert trial.gain == pytest.approx(0.587, abs=0.001)
    assert trial.sure == pytest.approx(trial.gain)
    assert trial.cost == pytest.approx(0.003)
    assert trial.passed


def test_a_young_demand_must_gain_more_than_one_that_has_lasted() -> None:
    far = [replace(vcpu(f"g{i}", 0.46, 0), steady_s=6.0) for i in range(4)]
    host = estimate_of(2, *far)
    nodes = tuple(replace(p, node=p.id, llc=p.id) for p in host.topology.pcpus)
    apart = replace(host, topology=replace(host.topology, pcpus=nodes))
    (young,) = trials(apart)
    assert young.cost == pytest.approx(0.050 / 10)
    (old,) = trials(replace(apart, vcpus=tuple(replace(v, steady_s=15.0) for v in apart.vcpus)))
    assert old.cost == pytest.approx(0.050 / 15)


def test_nothing_is_tried_of_a_vcpu_that_is_hardly_known() -> None:
    crowd = [replace(vcpu(f"g{i}", 0.5, 0), history=(0.5,) * 2) for i in range(4)]
    assert trials(estimate_of(2, *crowd)) == []


def test_what_gains_by_a_single_burst_is_tried_and_does_not_pass() -> None:
    bursts = [replace(vcpu(f"g{i}", 1 / 3, 0), history=(*(0.2,) * 5, 1.0) * 2) for i in range(2)]
    found = trials(estimate_of(2, *bursts, vcpu("calm", 0.2, 1)))
    assert found[0].change == Change(moved=1, back=NOBODY, source=0, target=1)
    assert found[0].gain == pytest.approx(0.0089, abs=1e-4)  # under the steady reading
    assert found[0].sure == pytest.approx(-0.084, abs=1e-3)
    assert not any(trial.passed for trial in found)


def test_what_gains_only_on_the_edge_of_enough_is_not_tried() -> None:
    full = [vcpu("a", 0.62, 0), vcpu("b", 0.40, 0), vcpu("c", 0.60, 1), vcpu("d", 0.38, 1)]
    assert trials(estimate_of(2, *full)) == []
    clear = [*full[:3], vcpu("d", 0.28, 1)]
    assert trials(estimate_of(2, *clear))[0].passed


def test_after_changes_that_were_not_sure_the_next_must_be_surer() -> None:
    """Of pCPU 1 one should leave; on pCPU 0 two work in bursts, and may move or not."""
    wavy = tuple(0.55 + 0.4 * (x - 0.5) for x in (0.9, 0.1, 0.5, 0.2, 0.7, 0.4) * 2)
    waves = [replace(vcpu(f"wave{i}", 0.55, 1), history=wavy) for i in range(2)]

    def found(fixed: str | None) -> Trial:
        bursts = [
            replace(vcpu(f"b{i}", 0.58, 0, fixed=fixed), history=(*(0.5,) * 5, 1.0) * 2)
            for i in range(2)
        ]
        host = estimate_of(3, vcpu("calm", 0.4, 2), *waves, *bursts)
        return next(trial for trial in trials(host) if trial.change.source == 1)

    only, fifth = found("pinned by its owner"), found(None)
    assert only.change.target == fifth.change.target == 2
    assert only.gain == pytest.approx(fifth.gain)
    assert only.passed
    assert not fifth.passed
