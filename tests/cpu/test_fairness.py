"""Entitlement: nobody gets more than wanted, nothing is left while wanted, weights count."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cpu.estimates import estimate_of, vcpu
from tests.cpu.test_balance import hosts
from virtbalance.cpu.fairness import entitlement, max_min
from virtbalance.model.cpu_estimate import CpuEstimate


def parts(estimate: CpuEstimate) -> dict[str, float]:
    demand = {v.key: v.demand_ratio for v in estimate.vcpus}
    shares = entitlement(estimate, demand)
    return {f"{key.uuid}/{key.vcpu}": share for key, share in shares.items()}


def test_three_hogs_on_two_pcpus_get_two_thirds_each() -> None:
    hogs = [vcpu(name, 1.0, 0) for name in "abc"]
    assert parts(estimate_of(2, *hogs)) == pytest.approx({"a/0": 2 / 3, "b/0": 2 / 3, "c/0": 2 / 3})


def test_what_the_light_leave_goes_to_the_heavy() -> None:
    shares = parts(estimate_of(1, vcpu("a", 1.0, 0), vcpu("b", 1.0, 0), vcpu("c", 0.1, 0)))
    assert shares == pytest.approx({"a/0": 0.45, "b/0": 0.45, "c/0": 0.1})


def test_a_guest_shares_inside_itself_first() -> None:
    shares = parts(
        estimate_of(
            1,
            vcpu("big", 1.0, 0, index=0),
            vcpu("big", 0.1, 0, index=1),
            vcpu("small", 1.0, 0),
        )
    )
    assert shares == pytest.approx({"big/0": 0.4, "big/1": 0.1, "small/0": 0.5})


def test_weights_count_and_a_weight_too_large_to_be_used_does_no_harm() -> None:
    assert max_min([1.0, 1.0], [3.0, 1.0], 1.0) == pytest.approx([0.75, 0.25])
    assert max_min([0.2, 1.0, 1.0], [100.0, 1.0, 1.0], 1.0) == pytest.approx([0.2, 0.4, 0.4])


def test_four_hogs_confined_to_one_cpu_are_owed_that_cpu() -> None:
    confined = [vcpu(f"c{i}", 1.0, 0, allowed={0}) for i in range(4)]
    shares = parts(estimate_of(2, *confined, vcpu("free", 1.0, 1)))
    assert shares == pytest.approx({f"c{i}/0": 0.25 for i in range(4)} | {"free/0": 1.0})


@given(hosts())
def test_sums_to_the_lesser_of_demand_and_capacity_and_never_above_demand(
    estimate: CpuEstimate,
) -> None:
    free = replace(
        estimate,
        vcpus=tuple(
            replace(v, allowed=estimate.topology.usable, fixed=None) for v in estimate.vcpus
        ),
    )
    shares = parts(free)
    wanted = sum(v.demand_ratio for v in free.vcpus)
    assert sum(shares.values()) == pytest.approx(min(wanted, sum(free.capacity.values())))
    for v in free.vcpus:
        assert 0 <= shares[f"{v.guest_name}/0"] <= v.demand_ratio + 1e-9


@given(hosts())
def test_no_pool_of_cpus_is_owed_more_than_it_can_give(estimate: CpuEstimate) -> None:
    shares = parts(estimate)
    for mask in {v.allowed for v in estimate.vcpus}:
        confined = [v for v in estimate.vcpus if v.fixed is None and v.allowed <= mask]
        owed = sum(shares[f"{v.guest_name}/0"] for v in confined)
        assert owed <= sum(estimate.capacity[cpu] for cpu in mask) + 1e-6


@given(hosts(), st.floats(1, 10))
def test_more_weight_is_never_less_share(estimate: CpuEstimate, weight: float) -> None:
    if not estimate.vcpus:
        return
    first, *others = estimate.vcpus
    richer = replace(estimate, vcpus=(replace(first, weight=weight), *others))
    name = f"{first.guest_name}/0"
    assert parts(richer)[name] >= parts(estimate)[name] - 1e-9
