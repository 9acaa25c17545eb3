"""The envelope around any CPU policy, however bad."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cpu.estimates import estimate_of, vcpu
from tests.cpu.test_balance import hosts
from virtbalance.cpu.guard import GuardState, budget, guard
from virtbalance.cpu.settings import GuardSettings
from virtbalance.model.cpu_estimate import CpuEstimate
from virtbalance.model.guest import VcpuKey
from virtbalance.model.hold import Hold
from virtbalance.model.plan import CpuPlan, Pin, Reason, Verdict

WHY: Any = Reason("test", "because")
ANY: Any = Pin
"""The same class, for answers that a type checker would not let pass."""
SETTINGS = GuardSettings()


def pin(name: str, *cpus: int) -> Pin:
    return Pin(VcpuKey(name, 0), frozenset(cpus), WHY)


def check(
    estimate: CpuEstimate,
    *pins: Any,
    state: GuardState | None = None,
    now_s: float = 0.0,
    holds: dict[str, Hold] | None = None,
    settings: GuardSettings = SETTINGS,
) -> Verdict:
    return guard(state, estimate, CpuPlan(pins), holds or {}, settings, now_s)[0]


def refused(verdict: Verdict) -> list[str]:
    assert verdict.actions == ()
    return [f"{a.asked}: {a.reason}" for a in verdict.amendments]


def done(verdict: Verdict) -> list[tuple[str, list[int]]]:
    return [(a.vcpu.uuid, sorted(a.cpus)) for a in verdict.actions if isinstance(a, Pin)]


PAIR = estimate_of(2, vcpu("a", 0.5, 0), vcpu("b", 0.5, 0))


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (pin("x", 1), "x/0 on 1: there is no such vCPU"),
        (pin("a"), "a/0 on no CPU: an empty set of CPUs"),
        (pin("a", 1, 2), "a/0 on 1,2: may not run on CPU 2"),
        (pin("a", 0), "a/0 on 0: is there already"),
        (None, "a NoneType: not a pin"),
        ("a", "a str: not a pin"),
        (ANY(VcpuKey("a", 0), {1}, WHY), "a Pin: not a pin"),
        (ANY(VcpuKey("a", 0), frozenset([1.0]), WHY), "a Pin: not a pin"),
        (ANY(VcpuKey("a", 0), frozenset({True}), WHY), "a Pin: not a pin"),
        (ANY(VcpuKey("a", 0), None, WHY), "a Pin: not a pin"),
        (ANY(("a", 0), frozenset({1}), WHY), "a Pin: not a pin"),
        (ANY(VcpuKey(ANY, 0), frozenset({1}), WHY), "a Pin: not a pin"),
        (ANY(VcpuKey("a", 0), frozenset({1}), "so"), "a Pin: not a pin"),
    ],
)
def test_nonsense_is_refused_with_a_line(item: Any, text: str) -> None:
    (line,) = refused(check(PAIR, item))
    assert line.startswith(text)


@pytest.mark.parametrize("answer", [None, "go", 1.0, [], CpuPlan(None), CpuPlan(5)])  # type: ignore[arg-type]
def test_an_answer_that_is_no_plan_is_refused(answer: Any) -> None:
    verdict, _ = guard(None, PAIR, answer, {}, SETTINGS, 0.0)
    (line,) = refused(verdict)
    assert "the policy's answer is no plan" in line


def test_fixed_and_held_guests_stay() -> None:
    fixed = estimate_of(2, vcpu("a", 0.5, 0, fixed="paused"))
    assert refused(check(fixed, pin("a", 1))) == ["a/0 on 1: must not be moved: paused"]
    holds = {"a": Hold(10.0, "somebody else pinned it")}
    assert refused(check(PAIR, pin("a", 1), holds=holds, now_s=9)) == [
        "a/0 on 1: must not be moved: somebody else pinned it"
    ]
    assert done(check(PAIR, pin("a", 1), holds=holds, now_s=10)) == [("a", [1])]


def test_the_first_of_two_pins_for_one_vcpu_stands() -> None:
    verdict = check(PAIR, pin("a", 1), pin("a", 0, 1))
    assert done(verdict) == [("a", [1])]
    assert "twice" in str(verdict.amendments[0].reason)


def test_the_budget_grows_with_the_host_and_with_gross_imbalance() -> None:
    even = [vcpu(f"g{i}", 0.5, i % 4) for i in range(8)]
    assert budget(estimate_of(4, *even), SETTINGS) == 4
    assert (
        budget(estimate_of(4, *(replace(v, affinity=frozenset({0})) for v in even)), SETTINGS) == 64
    )
    many = [vcpu(f"g{i:03}", 0.1, i % 100) for i in range(500)]
    assert budget(estimate_of(100, *many), SETTINGS) == 10
    crowd = [replace(v, affinity=frozenset({0})) for v in many]
    assert budget(estimate_of(100, *crowd), SETTINGS) == 64


def test_what_is_over_the_budget_waits() -> None:
    even = estimate_of(8, *(vcpu(f"g{i}", 0.5, i) for i in range(8)))
    verdict = check(even, *(pin(f"g{i}", (i + 3) % 8) for i in range(6)))
    assert len(verdict.actions) == 4
    assert [str(a.reason) for a in verdict.amendments] == ["no more changes in this tick"] * 2


def test_a_swap_is_never_half_done_and_passes_through_the_union() -> None:
    host = estimate_of(3, vcpu("a", 0.9, 0), vcpu("b", 0.2, 1), vcpu("c", 0.2, 0))
    swap = (pin("a", 1), pin("b", 0))
    assert done(check(host, *swap)) == [("a", [0, 1]), ("b", [0]), ("a", [1])]
    settings = GuardSettings(pins=2, gross_pins=1)
    even = estimate_of(3, vcpu("a", 0.5, 0), vcpu("b", 0.5, 1), vcpu("c", 0.5, 2))
    verdict = check(even, pin("c", 0), *swap, settings=settings)
    assert done(verdict) == [("c", [0])]
    assert len(verdict.amendments) == 2


def test_moves_into_the_coolest_pcpu_come_first() -> None:
    host = estimate_of(3, vcpu("a", 0.5, 0), vcpu("b", 0.5, 0), vcpu("c", 0.3, 1))
    assert done(check(host, pin("a", 1), pin("b", 2))) == [("b", [2]), ("a", [1])]


def test_a_vcpu_rests_after_a_move_unless_it_starves() -> None:
    plan = CpuPlan((pin("a", 1),))
    _, state = guard(None, PAIR, plan, {}, SETTINGS, 100.0)
    back = estimate_of(2, vcpu("a", 0.5, 1), vcpu("b", 0.5, 0))
    assert refused(check(back, pin("a", 0), state=state, now_s=102.0)) == [
        "a/0 on 0: was moved 2.0 s ago"
    ]
    assert done(check(back, pin("a", 0), state=state, now_s=105.0)) == [("a", [0])]
    starving = estimate_of(2, vcpu("a", 0.5, 1, run=0.1), vcpu("b", 0.5, 0))
    assert done(check(starving, pin("a", 0), state=state, now_s=102.0)) == [("a", [0])]


def test_the_state_forgets_what_is_over() -> None:
    _, state = guard(None, PAIR, CpuPlan((pin("a", 1),)), {}, SETTINGS, 100.0)
    assert state == GuardState({VcpuKey("a", 0): 100.0})
    assert guard(state, PAIR, CpuPlan(), {}, SETTINGS, 105.0)[1] == GuardState()


def test_settings_name_the_field_that_is_wrong() -> None:
    with pytest.raises(ValueError, match="pins must be 1 to 10000, got 0"):
        GuardSettings(pins=0)


cpus = st.frozensets(st.integers(-1, 8))
wild = st.one_of(
    st.none(),
    st.text(max_size=3),
    st.builds(
        Pin,
        st.builds(VcpuKey, st.sampled_from([f"g{i}" for i in range(14)]), st.integers(0, 1)),
        cpus,
        st.just(WHY),
    ),
)


@given(hosts(), st.lists(wild, max_size=20))
def test_whatever_is_asked_what_is_done_is_safe(estimate: CpuEstimate, asked: list[Any]) -> None:
    verdict = check(estimate, *asked)
    known = {v.key: v for v in estimate.vcpus}
    final: dict[VcpuKey, frozenset[int]] = {}
    for action in verdict.actions:
        assert isinstance(action, Pin)
        assert action.cpus
        assert action.cpus <= known[action.vcpu].allowed | known[action.vcpu].affinity
        assert known[action.vcpu].fixed is None
        final[action.vcpu] = action.cpus
    assert len(final) <= budget(estimate, SETTINGS)
    assert all(mask <= known[key].allowed for key, mask in final.items())
    assert len(final) + len(verdict.amendments) == len(asked)
