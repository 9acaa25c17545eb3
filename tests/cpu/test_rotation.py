"""Taking turns: what is owed, who moves, and when nobody does."""

from dataclasses import replace

import pytest

from tests.cpu.estimates import estimate_of, vcpu
from virtbalance.cpu.policies.balance import Balance, Memory
from virtbalance.cpu.rotation import Deficits, accrue
from virtbalance.model.cpu_estimate import CpuEstimate
from virtbalance.model.guest import VcpuKey

A, B, C = (VcpuKey(name, 0) for name in "abc")
THREE = estimate_of(
    2, vcpu("a", 1.0, 0, run=0.5), vcpu("b", 1.0, 0, run=0.5), vcpu("c", 1.0, 1, run=1.0)
)


def moves(estimate: CpuEstimate, state: Deficits, now_s: float) -> list[str]:
    plan, _ = Balance().decide(Memory(state), estimate, Balance.Config(pin="cpu"), now_s)
    return [str(pin.reason) for pin in plan.pins]


def test_what_is_owed_grows_with_time_and_has_a_limit() -> None:
    entitled = dict.fromkeys((A, B, C), 2 / 3)
    start = accrue(None, THREE, entitled, 10.0, 2.0)
    later = accrue(start, THREE, entitled, 13.0, 2.0)
    assert later.owed_s == pytest.approx({A: 0.5, B: 0.5, C: -1.0})
    assert accrue(later, THREE, entitled, 100.0, 2.0).owed_s == {A: 2.0, B: 2.0, C: -2.0}


def test_the_one_beside_the_most_owed_moves_to_the_most_favoured() -> None:
    owed = Deficits(10.0, {A: 0.4, B: 0.3, C: -0.7})
    (reason,) = moves(THREE, owed, 10.0)
    assert reason == (
        "loads do not divide; a/0 is owed 0.4 s, c/0 -0.7 s: "
        "leaving pCPU 0 to the one, sharing 1 with the other"
    )


def test_nobody_moves_for_less_than_a_second() -> None:
    assert moves(THREE, Deficits(10.0, {A: 0.3, B: 0.3, C: -0.6}), 10.0) == []


def test_even_hogs_do_not_take_turns_whatever_they_are_owed() -> None:
    even = estimate_of(2, *(vcpu(f"g{i}", 1.0, i % 2) for i in range(4)))
    owed = Deficits(10.0, {v.key: 2.0 if v.home else -2.0 for v in even.vcpus})
    assert moves(even, owed, 10.0) == []


def test_without_overload_nobody_takes_turns() -> None:
    light = estimate_of(2, vcpu("a", 0.4, 0), vcpu("b", 0.4, 0), vcpu("c", 0.4, 1))
    assert moves(light, Deficits(10.0, {A: 1.0, B: 1.0, C: -2.0}), 10.0) == []


def test_moves_forgive_what_their_pcpus_have_brought_about() -> None:
    """a to c crowd pCPU 0 while 1 is idle; d on pCPU 2 is not concerned."""
    crowd = [vcpu(name, 0.6, 0, run=0.33) for name in "abc"]
    host = estimate_of(3, *crowd, vcpu("d", 0.9, 2, run=0.5))
    owed = Deficits(10.0, {v.key: 1.5 for v in host.vcpus})
    plan, after = Balance().decide(Memory(owed), host, Balance.Config(pin="cpu"), 10.0)
    assert {pin.reason.rule for pin in plan.pins} == {"move"}
    assert after.deficits is not None
    assert after.deficits.owed_s == {VcpuKey("d", 0): 1.5}


def test_where_a_move_may_soon_be_sure_nobody_takes_turns_before() -> None:
    """e works every fourth second: three times are not enough to know whether one has to go."""
    e = replace(vcpu("e", 0.075, 0), history=(0.0, 0.0, 0.0, 0.3) * 3)
    host = replace(THREE, vcpus=(*THREE.vcpus, e))
    owed = Deficits(10.0, {A: 0.4, B: 0.3, C: -0.7})
    plan, _ = Balance().decide(Memory(owed), host, Balance.Config(pin="cpu"), 10.0)
    assert plan.pins == ()
    assert {pin.reason.rule for pin in plan.considered} == {"unsure"}
