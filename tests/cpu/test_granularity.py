"""Domains in the place of pCPUs: masks of a cache's pCPUs, and no pins where there is one cache."""

from dataclasses import replace

import pytest

from tests.cpu.estimates import applied, estimate_of, vcpu
from virtbalance.cpu.granularity import domains_of
from virtbalance.cpu.policies.balance import Balance
from virtbalance.model.cpu_estimate import CpuEstimate, VcpuEstimate
from virtbalance.model.plan import CpuPlan
from virtbalance.model.topology import NumaNode, Pcpu, Topology

DOMAIN = Balance.Config(pin="domain")
FOUR, OTHER_FOUR = frozenset(range(4)), frozenset(range(4, 8))


def two_caches(*vcpus: VcpuEstimate) -> CpuEstimate:
    topology = Topology(tuple(Pcpu(cpu, cpu, cpu // 4 * 4, 0) for cpu in range(8)))
    return replace(estimate_of(8, *vcpus), topology=topology)


def decide(estimate: CpuEstimate) -> CpuPlan:
    return Balance().decide(None, estimate, DOMAIN, 0.0)[0]


def masks(estimate: CpuEstimate) -> list[list[int]]:
    return sorted(sorted(v.affinity) for v in applied(estimate, decide(estimate)).vcpus)


def test_a_large_cache_is_cut_into_equal_parts_of_at_most_eight() -> None:
    flat = estimate_of(20)
    assert [len(part) for part in domains_of(flat).values()] == [7, 7, 6]


def test_threads_of_a_core_stay_in_one_domain() -> None:
    pcpus = tuple(Pcpu(cpu, cpu % 8, 0, 0) for cpu in range(16))
    split = domains_of(replace(estimate_of(16), topology=Topology(pcpus)))
    assert split == {
        0: frozenset({0, 1, 2, 3, 8, 9, 10, 11}),
        4: frozenset({4, 5, 6, 7, 12, 13, 14, 15}),
    }


def test_floating_vcpus_are_spread_over_the_caches() -> None:
    eight = [vcpu(f"g{i}", 0.8, FOUR | OTHER_FOUR) for i in range(8)]
    assert masks(two_caches(*eight)) == [[0, 1, 2, 3]] * 4 + [[4, 5, 6, 7]] * 4


def test_a_crowded_cache_gives_to_an_empty_one_and_says_so() -> None:
    crowd = [vcpu(f"g{i}", 1.0, FOUR) for i in range(8)]
    plan = decide(two_caches(*crowd))
    assert len(plan.pins) == 4
    assert str(plan.pins[0].reason) == (
        "pCPU 0-3 is loaded 2.00, pCPU 4-7 0.00; moving 1.00 evens them to 1.75/0.25"
    )


def test_a_mask_narrower_than_its_domain_is_widened() -> None:
    (pin,) = decide(two_caches(vcpu("a", 0.5, 2))).pins
    assert pin.cpus == FOUR
    assert str(pin.reason) == "confined to pCPU 2 where any of 0-3 will do"


def test_a_vcpu_keeps_to_what_it_is_allowed() -> None:
    crowd = [vcpu(f"g{i}", 1.0, FOUR, allowed={0, 1, 2, 3, 6}) for i in range(8)]
    assert masks(two_caches(*crowd))[-1] == [6]


def test_no_pins_where_there_is_one_domain() -> None:
    assert decide(estimate_of(4, *(vcpu(f"g{i}", 1.0, FOUR) for i in range(6)))).pins == ()


def test_nothing_more_after_that() -> None:
    crowd = two_caches(*(vcpu(f"g{i}", 0.9, i % 4) for i in range(7)))
    assert decide(applied(crowd, decide(crowd))).pins == ()


TWO_NODES = Topology(
    tuple(Pcpu(cpu, cpu, cpu // 4 * 4, cpu // 4) for cpu in range(8)),
    (NumaNode(0, 1 << 20), NumaNode(1, 1 << 20)),
)
ALL = FOUR | OTHER_FOUR


def automatic(estimate: CpuEstimate) -> CpuPlan:
    return Balance().decide(None, estimate, Balance.Config(), 0.0)[0]


def waiting(load: VcpuEstimate, wait: float) -> VcpuEstimate:
    return replace(load, wait_ratio=wait)


def test_auto_sets_no_pins_where_the_kernel_may_run_everybody_everywhere() -> None:
    crowd = [waiting(vcpu(f"g{i}", 1.0, FOUR), 0.3) for i in range(6)]
    assert automatic(estimate_of(4, *crowd)).pins == ()


def test_auto_frees_who_waits_in_a_heap_and_says_so() -> None:
    heap = [waiting(vcpu(f"g{i}", 0.5, 0), 0.6) for i in range(4)]
    plan = automatic(estimate_of(4, *heap))
    assert [pin.cpus for pin in plan.pins] == [FOUR] * 3  # the fourth has the pCPU to itself
    assert automatic(applied(estimate_of(4, *heap), plan)).pins == ()
    assert str(plan.pins[0].reason) == (
        "confined to pCPU 0 where any of 0-3 will do; it waits 60% of the time"
    )


def test_auto_leaves_narrow_masks_that_harm_nobody() -> None:
    even = [waiting(vcpu(f"g{i}", 0.5, i), 0.01) for i in range(4)]
    assert automatic(estimate_of(4, *even)).pins == ()


def test_auto_leaves_crowds_that_are_alike() -> None:
    hogs = [waiting(vcpu(f"g{i}", 1.0, i % 4), 0.5) for i in range(8)]
    assert automatic(estimate_of(4, *hogs)).pins == ()


def test_auto_frees_one_of_two_hogs_on_the_threads_of_a_core() -> None:
    topology = Topology(tuple(Pcpu(cpu, cpu // 2 * 2, 0, 0) for cpu in range(8)))
    hogs = [vcpu(f"g{i}", 1.0, i) for i in range(2)]
    plan = automatic(replace(estimate_of(8, *hogs), topology=topology))
    assert [(pin.vcpu.uuid, pin.cpus) for pin in plan.pins] == [("g0", frozenset(range(8)))]


def test_auto_keeps_guests_on_the_node_of_their_memory() -> None:
    there = [replace(vcpu(f"g{i}", 0.5, ALL), memory_node=1) for i in range(3)]
    unknown = vcpu("u", 0.5, ALL)
    plan = automatic(replace(estimate_of(8, *there, unknown), topology=TWO_NODES))
    assert [(pin.vcpu.uuid, pin.cpus) for pin in plan.pins] == [
        (f"g{i}", OTHER_FOUR) for i in range(3)
    ]
    assert str(plan.pins[0].reason) == (
        "its memory lies on node 1; pCPU 4-7 is loaded 0.25, with its 0.50 0.31"
    )


def test_auto_brings_a_guest_back_to_its_memory() -> None:
    far = replace(vcpu("a", 0.8, FOUR), memory_node=1, steady_s=60.0)
    plan = automatic(replace(estimate_of(8, far), topology=TWO_NODES))
    assert [pin.cpus for pin in plan.pins] == [OTHER_FOUR]


def test_the_word_is_checked() -> None:
    with pytest.raises(ValueError, match="pin must be auto, cpu or domain, got core"):
        Balance.Config(pin="core")
