"""What must hold on any host and for each granularity: issue 4's properties, end to end."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cpu.estimates import applied, vcpu
from tests.cpu.world import host, noisy
from virtbalance.cpu.demand import estimate as measured
from virtbalance.cpu.fairness import entitlement
from virtbalance.cpu.guard import budget, guard
from virtbalance.cpu.policies.balance import Balance
from virtbalance.cpu.promise import entitlement_now
from virtbalance.cpu.settings import DemandSettings, GuardSettings
from virtbalance.model.cpu_estimate import CpuEstimate, VcpuEstimate
from virtbalance.model.plan import CpuPlan, Pin
from virtbalance.model.topology import NumaNode, Pcpu, Topology

granularities = pytest.mark.parametrize("pin", ["cpu", "domain", "auto"])


def decide(estimate: CpuEstimate, pin: str) -> CpuPlan:
    return Balance().decide(None, estimate, Balance.Config(pin=pin), 0.0)[0]


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    """One or two nodes, each with one or two caches of some cores with one or two threads."""
    threads, cores, caches, nodes = (draw(st.integers(1, most)) for most in (2, 3, 2, 2))
    cpus_a_cache = threads * cores
    pcpus = tuple(
        Pcpu(
            cpu,
            core=cpu // threads * threads,
            llc=cpu // cpus_a_cache * cpus_a_cache,
            node=cpu // (cpus_a_cache * caches),
            online=draw(st.integers(0, 9)) > 0,
        )
        for cpu in range(cpus_a_cache * caches * nodes)
    )
    return Topology(pcpus, tuple(NumaNode(node, 1 << 20) for node in range(nodes)))


@st.composite
def hosts(draw: st.DrawFn) -> CpuEstimate:
    """Any host of guests with one to three vCPUs; some are fixed, confined, new or in doubt."""
    topology = draw(topologies().filter(lambda topology: topology.usable))
    usable = sorted(topology.usable)
    vcpus = [
        member
        for number in range(draw(st.integers(0, 6)))
        for member in draw(guests(f"g{number}", topology))
    ]
    return CpuEstimate(
        window_s=1.0,
        topology=topology,
        capacity={cpu: draw(st.floats(0.5, 1)) for cpu in usable},
        vcpus=tuple(vcpus),
    )


@st.composite
def guests(draw: st.DrawFn, name: str, topology: Topology) -> list[VcpuEstimate]:
    usable = sorted(topology.usable)
    some = st.sets(st.sampled_from(usable), min_size=1)
    allowed = draw(some | st.just(set(usable)))
    node = draw(st.none() | st.sampled_from(sorted(topology.usable_nodes)))
    weight = draw(st.sampled_from([0.5, 1.0, 4.0]))
    demands = st.floats(0, 1)
    return [
        replace(
            vcpu(
                name,
                draw(demands),
                draw(st.sampled_from(usable) | some | st.just(set(usable))),
                index=index,
                allowed=allowed,
                fixed=draw(st.sampled_from([None, None, None, "pinned"])),
                settled=draw(st.booleans()),
                weight=weight,
            ),
            wait_ratio=draw(st.none() | st.floats(0, 1)),
            steady_s=draw(st.floats(0, 400)),
            history=tuple(draw(st.lists(demands, max_size=8))),
            memory_node=node,
        )
        for index in range(draw(st.integers(1, 3)))
    ]


@granularities
@given(estimate=hosts())
def test_no_empty_mask_no_foreign_cpu_and_no_more_than_the_budget(
    estimate: CpuEstimate, pin: str
) -> None:
    known = {v.key: v for v in estimate.vcpus}
    plan = decide(estimate, pin)
    for change in plan.pins:
        assert change.cpus
        assert change.cpus <= known[change.vcpu].allowed & estimate.topology.usable
        assert known[change.vcpu].fixed is None
    settings = GuardSettings(pins=1, gross_pins=2)
    verdict, _ = guard(None, estimate, plan, {}, settings, 0.0)
    moved = {action.vcpu for action in verdict.actions if isinstance(action, Pin)}
    assert len(moved) <= budget(estimate, settings)
    assert all(refusal.reason.rule == "budget" for refusal in verdict.amendments)


@granularities
@given(estimate=hosts())
def test_a_plan_that_was_applied_is_not_bettered(estimate: CpuEstimate, pin: str) -> None:
    after = applied(estimate, decide(estimate, pin))
    assert decide(after, pin).pins == ()


def test_a_first_home_that_draws_a_guest_to_another_cache_is_thought_through() -> None:
    """Its first two live under one cache until the third, which wants most, gets its home."""
    pcpus = tuple(Pcpu(cpu, core=cpu // 2 * 2, llc=cpu // 2 * 2, node=0) for cpu in range(4))
    allowed = {0, 1, 2}
    doubted = vcpu("g0", 1.0, 0, index=0, allowed=allowed, settled=False)
    light = vcpu("g0", 0.25, 0, index=1, allowed=allowed, settled=False)
    homeless = vcpu("g0", 1.0, {0, 1, 2, 3}, index=2, allowed=allowed)
    estimate = CpuEstimate(
        window_s=1.0,
        topology=Topology(pcpus),
        capacity=dict.fromkeys(range(4), 1.0),
        vcpus=(
            replace(doubted, history=(0.0, 1.0, 1.0, 0.75, 0.75)),
            replace(light, history=()),
            replace(homeless, history=()),
        ),
    )
    after = applied(estimate, decide(estimate, "cpu"))
    assert decide(after, "cpu").pins == ()


def test_who_is_crowded_by_a_plan_is_freed_in_it() -> None:
    """One comes home to the node of its memory, into the narrow mask of another."""
    topology = Topology(
        tuple(Pcpu(cpu, core=cpu, llc=cpu // 3, node=cpu // 3) for cpu in range(4)),
        (NumaNode(0, 1 << 20), NumaNode(1, 1 << 20)),
    )
    comes = replace(vcpu("a", 0.5, {0, 1, 2, 3}, allowed={0, 1}), memory_node=0)
    narrow = vcpu("b", 1.0, {0, 1}, allowed={0, 1, 2})
    estimate = CpuEstimate(1.0, topology, {0: 0.5, 1: 0.5, 2: 1.0, 3: 1.0}, (comes, narrow))
    pins = {pin.vcpu.uuid: pin.cpus for pin in decide(estimate, "auto").pins}
    assert pins == {"a": frozenset({0, 1}), "b": frozenset({0, 1, 2})}


@granularities
@given(order=st.permutations(range(6)))
def test_the_order_of_guests_does_not_matter(order: list[int], pin: str) -> None:
    world = host(2, [noisy(0.1 + 0.1 * i, i) for i in range(6)], [0, 0, 0, 0, None, None])
    settings = DemandSettings(sample_s=0.25)
    state = other_state = None
    for _ in range(40):
        world.advance(0.25)
        seen = world.sample()
        shuffled = replace(seen, guests=tuple(seen.guests[i] for i in order))
        estimate, state = measured(state, seen, {}, settings)
        other_estimate, other_state = measured(other_state, shuffled, {}, settings)
    verdicts = [
        guard(None, known, decide(known, pin), {}, GuardSettings(), 0.0)[0]
        for known in (estimate, other_estimate)
    ]
    assert verdicts[0] == verdicts[1]
    assert pin != "cpu" or verdicts[0].actions


@given(hosts())
def test_nobody_is_entitled_to_more_than_demand(estimate: CpuEstimate) -> None:
    entitled = entitlement_now(estimate)
    for v in estimate.vcpus:
        assert 0 <= entitled[v.key] <= v.demand_ratio + 1e-9


@given(hosts(), st.data())
def test_each_pool_is_owed_the_lesser_of_demand_and_capacity(
    estimate: CpuEstimate, data: st.DataObject
) -> None:
    """Pools that share no CPU: every guest is confined to one of them."""
    usable = sorted(estimate.capacity)
    cut = data.draw(st.integers(1, len(usable)))
    pools = [frozenset(part) for part in (usable[:cut], usable[cut:]) if part]
    pool_of = {
        uuid: data.draw(st.sampled_from(pools)) for uuid in {v.key.uuid for v in estimate.vcpus}
    }
    confined = replace(
        estimate,
        vcpus=tuple(replace(v, allowed=pool_of[v.key.uuid], fixed=None) for v in estimate.vcpus),
    )
    entitled = entitlement_now(confined)
    for pool in pools:
        members = [v for v in confined.vcpus if v.allowed == pool]
        wanted = sum(v.demand_ratio for v in members)
        room = sum(estimate.capacity[cpu] for cpu in pool)
        assert sum(entitled[v.key] for v in members) == pytest.approx(min(wanted, room))


@given(hosts(), st.floats(1, 10))
def test_more_weight_is_never_less_for_a_guest(estimate: CpuEstimate, factor: float) -> None:
    if not estimate.vcpus:
        return
    demand = {v.key: v.demand_ratio for v in estimate.vcpus}
    favoured = estimate.vcpus[0].key.uuid
    richer = replace(
        estimate,
        vcpus=tuple(
            replace(v, weight=v.weight * factor) if v.key.uuid == favoured else v
            for v in estimate.vcpus
        ),
    )

    def part(of: CpuEstimate) -> float:
        return sum(share for key, share in entitlement(of, demand).items() if key.uuid == favoured)

    assert part(richer) >= part(estimate) - 1e-9
