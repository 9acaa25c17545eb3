"""Changes weighed on a placement: what is promised is what comes when it is done."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cpu.estimates import estimate_of, vcpu
from virtbalance.cpu.board import BARRED, NOBODY, Board, Partners
from virtbalance.cpu.replay import recorded
from virtbalance.model.cpu_estimate import CpuEstimate, VcpuEstimate
from virtbalance.model.topology import NumaNode, Pcpu, Topology

TWO_NODES = Topology(
    tuple(Pcpu(cpu, cpu // 2 * 2, cpu // 4 * 4, cpu // 4) for cpu in range(8)),
    (NumaNode(0, 1 << 20), NumaNode(1, 1 << 20)),
)
"""Two nodes, each with a cache over two cores of two threads."""


def on_two_nodes(*vcpus: VcpuEstimate) -> CpuEstimate:
    return replace(estimate_of(8, *vcpus), topology=TWO_NODES)


def board(estimate: CpuEstimate) -> Board:
    return Board(estimate, recorded(estimate).readings)


def gain(on: Board, moved: int, source: int, target: int, back: int = NOBODY) -> float:
    partners = Partners(np.array([target]), np.array([back]))
    return float(on.gains([moved], source, partners)[0, 0, 0].mean())


def test_evening_out_gains_what_strain_says() -> None:
    three_and_one = board(estimate_of(2, *(vcpu(f"g{i}", 0.37, int(i == 3)) for i in range(4))))
    # 0.11 + 0.123 and 0.014 before, twice 0.055 after
    assert gain(three_and_one, 0, 0, 1) == pytest.approx(0.138, abs=0.001)


def test_a_full_core_gives_to_an_empty_one_rather_than_to_its_own_thread() -> None:
    on = board(on_two_nodes(vcpu("a", 0.9, 0), vcpu("b", 0.9, 1)))
    assert gain(on, 1, 1, 2) > 0.3
    assert gain(on, 1, 1, 0) < 0


def test_siblings_are_better_apart() -> None:
    together = board(estimate_of(2, vcpu("a", 0.2, 0), vcpu("a", 0.2, 0, index=1)))
    strangers = board(estimate_of(2, vcpu("a", 0.2, 0), vcpu("b", 0.2, 0)))
    assert gain(together, 0, 0, 1) - gain(strangers, 0, 0, 1) == pytest.approx(0.05 * 0.2)


def test_a_lone_vcpu_moves_to_its_memory_and_nowhere_else() -> None:
    far = replace(vcpu("a", 0.8, 0), memory_node=1)
    assert gain(board(on_two_nodes(far)), 0, 0, 4) == pytest.approx(
        0.1 * 0.64 * (1.25**2 - 1) + 0.25 * 0.8
    )
    assert gain(board(on_two_nodes(far)), 0, 0, 2) == BARRED
    assert gain(board(on_two_nodes(vcpu("a", 0.8, 0))), 0, 0, 4) == BARRED


def test_a_guest_under_one_cache_loses_by_being_torn_apart() -> None:
    members = [vcpu("a", 0.5, 0), vcpu("a", 0.5, 2, index=1)]
    others = [vcpu("b", 0.5, 0), vcpu("c", 0.5, 4)]
    near = gain(board(on_two_nodes(*members, *others)), 0, 0, 6)
    loner = gain(board(on_two_nodes(vcpu("a", 0.5, 0), vcpu("d", 0.5, 2), *others)), 0, 0, 6)
    assert near < loner


def test_what_is_not_allowed_is_barred() -> None:
    on = board(estimate_of(2, vcpu("a", 0.5, 0, allowed={0}), vcpu("b", 0.5, 0)))
    assert gain(on, 0, 0, 1) == BARRED
    assert gain(on, 1, 0, 1) > 0


def burden_of(on: Board) -> float:
    """The strain of all cores, and all load: of it only what distance adds can change."""
    topology = on.estimate.topology
    cores = {topology.by_id[cpu].core: place for place, cpu in enumerate(on.cpus)}
    return float(on.strains()[list(cores.values())].sum() + on.relative().sum())


@st.composite
def crowds(draw: st.DrawFn) -> CpuEstimate:
    loads = [
        replace(
            vcpu(f"g{number}", draw(st.floats(0.05, 1)), draw(st.integers(0, 7))),
            memory_node=draw(st.sampled_from([None, 0, 1])),
            history=tuple(draw(st.lists(st.floats(0.05, 1), min_size=4, max_size=4))),
        )
        for number in range(draw(st.integers(2, 8)))
    ]
    return on_two_nodes(*loads)


@given(crowds(), st.data())
def test_the_gain_of_an_exchange_is_the_fall_of_the_burden(
    estimate: CpuEstimate, data: st.DataObject
) -> None:
    on = board(estimate)
    moved = data.draw(st.integers(0, len(estimate.vcpus) - 1))
    source = on.homes[moved]
    assert source is not None
    target = data.draw(st.integers(0, 7).filter(lambda cpu: cpu != source))
    back = data.draw(st.sampled_from([NOBODY, *on.movable(target)]))
    promised = gain(on, moved, source, target, back)
    if promised == BARRED:
        return
    before = burden_of(on)
    on.exchange(moved, target, back)
    assert before - burden_of(on) == pytest.approx(promised, abs=1e-9)
