"""What would make a vCPU move, in words and numbers."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cpu.estimates import estimate_of, vcpu
from virtbalance.cpu.outlook import outlook
from virtbalance.cpu.promise import entitlement_now
from virtbalance.model.cpu_estimate import CpuEstimate, VcpuEstimate
from virtbalance.model.plan import Reason
from virtbalance.model.topology import Pcpu, Topology


def seen(estimate: CpuEstimate, name: str = "a") -> Reason:
    (about,) = (v for v in estimate.vcpus if v.guest_name == name)
    return outlook(about, estimate, entitlement_now(estimate))


def test_a_vcpu_that_would_be_better_off_elsewhere() -> None:
    why = seen(estimate_of(2, vcpu("a", 0.4, 0), vcpu("b", 0.5, 0), vcpu("c", 0.2, 1)))
    assert why.rule == "better"
    assert str(why) == (
        "pCPU 0 is loaded 0.90, pCPU 1 would be 0.60 with it: that relieves the host by 0.02 pCPUs"
    )


def test_what_is_lacking_until_a_move_would_help() -> None:
    why = seen(estimate_of(2, vcpu("a", 0.4, 0), vcpu("b", 0.5, 0), vcpu("c", 0.7, 1)))
    assert why.rule == "enough"
    # with 0.2 the two would change their loads; a gain must be more than 0.003
    assert why.figures["lacking"] == pytest.approx(0.203, abs=5e-4)
    assert str(why).endswith("0 would have to carry 0.20 more")


def test_what_is_lacking_is_what_it_takes() -> None:
    more = estimate_of(2, vcpu("a", 0.4, 0), vcpu("b", 0.73, 0), vcpu("c", 0.7, 1))
    assert seen(more).rule == "better", "0.23 more than above"
    less = estimate_of(2, vcpu("a", 0.4, 0), vcpu("b", 0.67, 0), vcpu("c", 0.7, 1))
    assert seen(less).rule == "enough", "0.17 more than above"


def test_alone_on_its_pcpu_a_move_only_renames() -> None:
    why = seen(estimate_of(2, vcpu("a", 0.9, 0)))
    assert (why.rule, str(why)) == ("alone", "it has pCPU 0 to itself")


def test_alone_but_far_from_its_memory() -> None:
    far = replace(vcpu("a", 0.9, 0), memory_node=1)
    nodes = Topology(tuple(Pcpu(cpu, cpu, cpu, cpu) for cpu in range(2)))
    why = seen(replace(estimate_of(2, far), topology=nodes))
    assert (why.rule, why.figures["target"]) == ("better", 1)


def test_a_busy_sibling_thread_counts() -> None:
    """Loads of 1.00 everywhere, but an idle core beside a full one."""
    cores = Topology(tuple(Pcpu(cpu, cpu // 2 * 2, 0, 0) for cpu in range(4)))
    hogs = [vcpu(name, 1.0, cpu) for cpu, name in enumerate("ab")]
    why = seen(replace(estimate_of(4, *hogs), topology=cores))
    assert why.rule == "better"
    assert why.figures["target"] == 2
    assert why.figures["load"] == why.figures["load_there"] == 1.0


def test_what_pays_for_itself_only_in_time_is_not_better_yet() -> None:
    """A move to another node costs 50 ms: 5 thousandths of a pCPU over ten seconds."""
    nodes = Topology(tuple(Pcpu(cpu, cpu, cpu, cpu) for cpu in range(2)))
    pair = estimate_of(2, vcpu("a", 0.1, 0), vcpu("b", 0.2, 0), vcpu("c", 0.0, 1))
    young = replace(pair, topology=nodes)
    why = seen(young)
    assert why.rule == "enough"
    assert why.figures["cost"] == pytest.approx(0.005)
    assert why.figures["gain"] == pytest.approx(0.004)
    old = replace(young, vcpus=tuple(replace(v, steady_s=30.0) for v in young.vcpus))
    assert seen(old).rule == "better"


def test_who_wants_nothing_relieves_nobody() -> None:
    assert seen(estimate_of(2, vcpu("a", 0.0, 0), vcpu("b", 1.0, 0))).rule == "idle"


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
