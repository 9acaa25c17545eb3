"""What would make a vCPU move, in words and numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cpu.estimates import estimate_of, vcpu
from virtbalance.cpu.outlook import outlook
from virtbalance.cpu.promise import entitlement_now
from virtbalance.model.cpu_estimate import CpuEstimate, VcpuEstimate
from virtbalance.model.plan import Reason


def seen(estimate: CpuEstimate, name: str = "a") -> Reason:
    (about,) = (v for v in estimate.vcpus if v.guest_name == name)
    return outlook(about, estimate, entitlement_now(estimate))


def test_a_vcpu_that_would_be_better_off_elsewhere() -> None:
    why = seen(estimate_of(2, vcpu("a", 0.4, 0), vcpu("b", 0.5, 0), vcpu("c", 0.2, 1)))
    assert why.rule == "better"
    assert str(why) == "pCPU 0 is loaded 0.90, pCPU 1 would be 0.60 with it: 0.30 lower"


def test_what_is_lacking_until_a_move_would_help() -> None:
    why = seen(estimate_of(2, vcpu("a", 0.4, 0), vcpu("b", 0.5, 0), vcpu("c", 0.7, 1)))
    assert why.rule == "enough"
    assert why.figures["lacking"] == pytest.approx(0.2)
    assert str(why).endswith("0 would have to carry 0.20 more")


def test_what_is_lacking_is_what_it_takes() -> None:
    more = estimate_of(2, vcpu("a", 0.4, 0), vcpu("b", 0.73, 0), vcpu("c", 0.7, 1))
    assert seen(more).rule == "better", "0.23 more than above"
    less = estimate_of(2, vcpu("a", 0.4, 0), vcpu("b", 0.67, 0), vcpu("c", 0.7, 1))
    assert seen(less).rule == "enough", "0.17 more than above"


def test_alone_on_its_pcpu_a_move_only_renames() -> None:
    assert seen(estimate_of(2, vcpu("a", 0.9, 0))).figures["lacking"] == pytest.approx(0.0)
    assert seen(estimate_of(2, vcpu("a", 0.9, 0))).rule == "enough"


@pytest.mark.parametrize(
    ("about", "text"),
    [
        (vcpu("a", 0.4, {0, 1}), "the kernel moves it among all the pCPUs it may use"),
        (vcpu("a", 0.4, 0, allowed={0}), "there is no other pCPU it may use"),
        (vcpu("a", 0.4, 7), "none of the pCPUs it may run on can be used"),
    ],
)
def test_where_there_is_no_choice(about: VcpuEstimate, text: str) -> None:
    assert str(seen(estimate_of(2, about))) == text


def test_a_set_of_pcpus_counts_as_one_place() -> None:
    host = estimate_of(3, vcpu("a", 0.6, {0, 1}), vcpu("b", 0.9, 0), vcpu("c", 0.9, 1))
    assert seen(host).figures["source"] == "0-1"
    assert seen(host).rule == "better", "two pCPUs share 2.40, the third idles"


@given(
    st.lists(st.tuples(st.floats(0.01, 1), st.integers(0, 2)), min_size=1, max_size=8),
    st.floats(0.05, 0.5),
)
def test_carrying_more_than_what_is_lacking_makes_it_better_off(
    others: list[tuple[float, int]], own: float
) -> None:
    def host(extra: float) -> CpuEstimate:
        vcpus = [vcpu(f"g{i}", load / 20, on) for i, (load, on) in enumerate(others)]
        return estimate_of(3, vcpu("a", own, 0), vcpu("z", extra, 0), *vcpus)

    why = seen(host(0.0))
    if why.rule == "enough":
        lacking = why.figures["lacking"]
        assert isinstance(lacking, float)
        assert seen(host(min(1.0, lacking + 0.02))).rule == "better"
