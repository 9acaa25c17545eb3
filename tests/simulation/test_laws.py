"""Laws that hold whatever the scene: time and memory come from nowhere and go nowhere."""

import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulation.rates import vcpus
from virtbalance.model.guest import GuestDefinition, VcpuKey
from virtbalance.model.snapshot import Scope
from virtbalance.simulation.build import host, uuid
from virtbalance.simulation.event import EventCpu
from virtbalance.simulation.fluid import FluidCpu
from virtbalance.simulation.guest import SimGuest, SimMemory, SimVcpu
from virtbalance.simulation.host import SimulatedHost
from virtbalance.simulation.machine import SimMachine, layered_topology
from virtbalance.simulation.want import MIB, Constant, Steps
from virtbalance.simulation.workload import (
    Bursts,
    Closed,
    Noise,
    Open,
    Phase,
    Phases,
    Spread,
    Steady,
    Trace,
    Workload,
    hog,
    loop,
)
from virtbalance.simulation.world import CpuModelMaker

CPUS = 6
SPREADS = st.sampled_from(list(Spread))
LOADS = st.one_of(
    st.builds(Closed, st.floats(0.05, 1.0), st.sampled_from([0.0005, 0.01, 0.3]), SPREADS),
    st.builds(Open, st.floats(0.0, 1.5), st.sampled_from([0.002, 0.02]), SPREADS),
)
WORKLOADS: st.SearchStrategy[Workload] = st.one_of(
    st.builds(Steady, LOADS),
    st.builds(Phases, st.tuples(st.builds(Phase, st.floats(0.1, 2.0), LOADS)), st.booleans()),
    st.builds(Bursts, st.floats(0.05, 1.0), st.floats(0.05, 1.0), LOADS),
    st.builds(Noise, st.floats(0.0, 1.0), st.floats(0.0, 0.3), st.just(0.5), st.booleans()),
    st.builds(Trace, st.tuples(st.floats(0, 1.2), st.floats(0, 1.2)), st.just(0.7), st.booleans()),
)
MASKS = st.one_of(st.none(), st.frozensets(st.integers(0, CPUS - 1), min_size=1, max_size=CPUS))


@st.composite
def guests(draw: st.DrawFn) -> list[SimGuest]:
    described = []
    for number in range(draw(st.integers(1, 6))):
        of_guest = draw(st.lists(st.builds(SimVcpu, WORKLOADS, MASKS), min_size=1, max_size=3))
        definition = GuestDefinition(
            cpu_shares=draw(st.sampled_from([None, 256, 4096])),
            quota_ratio=draw(st.sampled_from([None, 0.3])),
        )
        node = draw(st.sampled_from([None, 0, 1]))
        described.append(
            SimGuest(f"g{number}", tuple(of_guest), None, definition=definition, memory_node=node)
        )
    return described


def check_time(
    described: list[SimGuest], moves: list[frozenset[int]], model: CpuModelMaker
) -> None:
    topology = layered_topology(nodes=1, caches=1, cores=3, threads=2)
    machine = SimMachine(topology, other_work={0: loop(0.2)}, steal_ratio={1: 0.1})
    simulated = SimulatedHost(machine, described, seed=1, cpu_model=model)
    before = vcpus(simulated)
    busy_before = dict.fromkeys(range(CPUS), 0)
    keys = sorted(before)
    for number, mask in enumerate(moves):
        simulated.advance(0.7)
        after, wall_ns = vcpus(simulated), simulated.now_s * 1e9
        busy = {p.id: p.busy_ns for p in simulated.sample(Scope.CPU, 1).pcpus}
        for key, sample in after.items():
            assert sample.wait_ns is not None
            assert sample.run_ns >= before[key].run_ns
            assert sample.wait_ns >= (before[key].wait_ns or 0)
            assert sample.run_ns + sample.wait_ns <= wall_ns + 5e6
        assert all(0 <= busy[cpu] - busy_before[cpu] <= 0.7e9 + 1e3 for cpu in busy)
        # Run times may be shown up to a slice ahead; the host's own thread is among the busy.
        assert sum(s.run_ns for s in after.values()) <= sum(busy.values()) + 3e6 * len(after)
        total_work_s = sum(simulated.truth().work_s.values())
        assert total_work_s <= sum(busy.values()) / 1e9 + 1e-6
        before, busy_before = after, busy
        simulated.pin(*keys[number % len(keys)], mask)


MOVES = st.lists(
    st.frozensets(st.integers(0, CPUS - 1), min_size=1, max_size=CPUS), min_size=2, max_size=6
)


@settings(max_examples=60)
@given(guests(), MOVES)
def test_no_time_from_nowhere_in_the_fluid_model(
    described: list[SimGuest], moves: list[frozenset[int]]
) -> None:
    check_time(described, moves, FluidCpu)


@settings(max_examples=25)
@given(guests(), MOVES)
def test_no_time_from_nowhere_in_the_event_model(
    described: list[SimGuest], moves: list[frozenset[int]]
) -> None:
    check_time(described, moves, EventCpu)


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.integers(256, 4096), st.integers(0, 5000), st.integers(0, 3000), st.booleans()
        ),
        min_size=1,
        max_size=5,
    ),
    st.lists(st.tuples(st.integers(0, 4), st.integers(1, 4096)), max_size=12),
)
def test_no_memory_from_nowhere(
    described: list[tuple[int, int, int, bool]], commands: list[tuple[int, int]]
) -> None:
    memories = [
        SimMemory(
            maximum_kib=maximum * MIB,
            want=Steps(((0, want * MIB / 2), (4, want * MIB))),
            cache_kib=cache * MIB,
            swap_kib=512 * MIB if swap else 0,
        )
        for maximum, want, cache, swap in described
    ]
    simulated = host(1, len(memories), memory=memories)
    for number, size in [*commands, (0, 4096)]:
        at = number % len(memories)
        simulated.resize(uuid(at), min(size * MIB, memories[at].maximum_kib))
        simulated.advance(1.0)
        truth, snapshot = simulated.truth(), simulated.sample(Scope.MEMORY, 1.0)
        assert snapshot.memory is not None
        touched = sum(memory.touched_kib + 64 * MIB for memory in truth.memory.values())
        in_use = 1024 * MIB + touched - truth.host_excess_kib
        assert in_use + snapshot.memory.available_kib == pytest.approx(16384 * MIB, abs=16)
        for memory in truth.memory.values():
            assert memory.used_kib + memory.cache_kib <= memory.touched_kib <= memory.actual_kib
            assert memory.used_kib <= memory.want_kib
            assert 0 < memory.performance_ratio <= 1


# Chance


def scene(seed: int, model: CpuModelMaker) -> SimulatedHost:
    loads: list[Workload] = [
        loop(0.4, 0.3, Spread.EXPONENTIAL),
        Bursts(0.4, 0.6),
        Noise(0.5, 0.2, 0.5),
        Steady(Open(0.3, 0.01)),
        hog(),
    ]
    return host(2, 5, load=loads, seed=seed, cpu_model=model)


@pytest.mark.parametrize("model", [FluidCpu, EventCpu])
def test_the_same_seed_gives_the_same_run_to_the_last_digit(model: CpuModelMaker) -> None:
    first, second, other = scene(3, model), scene(3, model), scene(4, model)
    for simulated in (first, second, other):
        simulated.advance(20)
    assert first.truth() == second.truth()
    assert first.sample(Scope.CPU, 1) == second.sample(Scope.CPU, 1)
    assert first.truth() != other.truth()


def test_what_a_policy_does_does_not_change_what_others_want() -> None:
    """The same bursts and noise come at the same times, pinned or not."""
    free, pinned = scene(3, FluidCpu), scene(3, FluidCpu)
    pinned.pin(uuid(4), 0, frozenset({0}))
    for _ in range(40):
        free.advance(0.5)
        pinned.advance(0.5)
        assert free.truth().demand_ratio == pinned.truth().demand_ratio


def test_a_guest_more_does_not_change_the_others_luck() -> None:
    few = host(4, 2, load=Bursts(0.3, 0.5), seed=5)
    more = host(4, 3, load=Bursts(0.3, 0.5), seed=5)
    for _ in range(40):
        few.advance(0.5)
        more.advance(0.5)
        wanted = more.truth().demand_ratio
        assert all(wanted[key] == value for key, value in few.truth().demand_ratio.items())


def test_looking_more_often_does_not_change_memory() -> None:
    memory = SimMemory(want=Constant(900.0 * MIB), cache_kib=500 * MIB)
    seldom, often = host(1, 2, memory=memory), host(1, 2, memory=memory)
    for simulated in (seldom, often):
        simulated.at(3.0, functools.partial(simulated.resize, uuid(0), 700 * MIB))
    seldom.advance(10)
    for _ in range(100):
        often.advance(0.1)
        often.sample(Scope.MEMORY, 1.0)
    assert seldom.truth().memory[uuid(0)].actual_kib == often.truth().memory[uuid(0)].actual_kib
    assert seldom.truth().memory[uuid(0)].cache_kib == often.truth().memory[uuid(0)].cache_kib


def test_keys_of_the_truth_are_those_of_the_samples() -> None:
    simulated = SimulatedHost(
        SimMachine(other_work={0: hog()}), [SimGuest("g", (SimVcpu(), SimVcpu()))]
    )
    keys = set(vcpus(simulated))
    truth = simulated.truth()
    assert keys == set(truth.work_s) == set(truth.demand_ratio)
    assert keys == {VcpuKey(simulated.uuid_of("g"), i) for i in (0, 1)}
