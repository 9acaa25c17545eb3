"""Which node a guest's memory speaks for."""

from dataclasses import replace

from virtbalance.cpu.memory_node import memory_node
from virtbalance.model.guest import GuestDefinition
from virtbalance.model.snapshot import GuestSample
from virtbalance.model.topology import NumaNode, Pcpu, Topology

GUEST = GuestSample("g", "g", "1")
TWO_NODES = Topology(
    tuple(Pcpu(cpu, core=cpu, llc=4 * (cpu // 4), node=cpu // 4) for cpu in range(8)),
    nodes=(NumaNode(0, 1024), NumaNode(1, 1024)),
)


def node_of(memory: dict[int, int] | None, bound: set[int] | None = None) -> int | None:
    definition = GuestDefinition(memory_nodes=None if bound is None else frozenset(bound))
    return memory_node(replace(GUEST, memory_by_node=memory, definition=definition), TWO_NODES)


def test_the_node_with_more_than_half() -> None:
    assert node_of({0: 400, 1: 600}) == 1
    assert node_of({0: 1000, 1: 0}) == 0


def test_evenly_spread_memory_speaks_for_no_node() -> None:
    assert node_of({0: 500, 1: 500}) is None


def test_unknown_memory_goes_by_a_strict_binding_to_one_node() -> None:
    assert node_of(None) is None
    assert node_of(None, {1}) == 1
    assert node_of(None, {0, 1}) is None
    assert node_of({0: 0, 1: 0}, {1}) == 1, "nothing is resident yet"
    assert node_of({0: 900, 1: 100}, {1}) == 0, "where it is counts more than where it should be"


def test_a_node_without_usable_cpus_speaks_for_none() -> None:
    cxl = replace(TWO_NODES, nodes=(*TWO_NODES.nodes, NumaNode(2, 4096)))
    assert memory_node(replace(GUEST, memory_by_node={2: 900, 0: 100}), cxl) is None
    offline = Topology(
        tuple(replace(pcpu, online=pcpu.node == 0) for pcpu in TWO_NODES.pcpus),
        nodes=TWO_NODES.nodes,
    )
    assert memory_node(replace(GUEST, memory_by_node={1: 1000}), offline) is None


def test_a_host_with_one_node_has_nothing_to_tell() -> None:
    one = replace(TWO_NODES, nodes=TWO_NODES.nodes[:1])
    assert memory_node(replace(GUEST, memory_by_node={0: 1000}), one) is None
