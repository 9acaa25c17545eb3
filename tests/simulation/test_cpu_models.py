"""Both CPU models against known truths, and against each other."""

from collections.abc import Sequence

import pytest

from tests.simulation.rates import jain, rates, vcpus
from virtbalance.model.guest import GuestDefinition, VcpuKey
from virtbalance.model.snapshot import Scope
from virtbalance.model.topology import Pcpu, Topology, flat_topology
from virtbalance.simulation.build import guest, host, uuid
from virtbalance.simulation.event import EventCpu
from virtbalance.simulation.fluid import FluidCpu
from virtbalance.simulation.guest import SimGuest, SimVcpu
from virtbalance.simulation.host import SimulatedHost
from virtbalance.simulation.kernel import Kernel
from virtbalance.simulation.machine import SimMachine, layered_topology
from virtbalance.simulation.workload import Spread, Trace, Workload, arrivals, hog, idle, loop
from virtbalance.simulation.world import CpuModelMaker

MODELS = pytest.mark.parametrize("model", [FluidCpu, EventCpu])


def random_loop(duty: float, work_s: float = 0.01) -> Workload:
    return loop(duty, work_s, Spread.EXPONENTIAL)


# Known truths


@MODELS
def test_what_changes_at_a_time_is_seen_after_it(model: CpuModelMaker) -> None:
    """A look at the end of a step tells what was wanted in that step."""
    simulated = host(1, 1, load=Trace((0.2, 0.8), 4.0), cpu_model=model)
    seen: list[float] = []
    for _ in range(4):
        simulated.advance(4.0)
        seen += simulated.truth().demand_ratio.values()
    assert seen == [0.2, 0.8, 0.2, 0.8]


@MODELS
def test_half_a_cpu_beside_one_hog_gets_a_third(model: CpuModelMaker) -> None:
    half, rest = rates(host(1, 2, load=[random_loop(0.5), hog()], cpu_model=model), 300)
    assert half == pytest.approx((1 / 3, 1 / 3), abs=0.015)
    assert half.idle == pytest.approx(1 / 3, abs=0.015)
    assert half.run / (half.run + half.idle) == pytest.approx(0.5, abs=0.015)
    assert rest == pytest.approx((2 / 3, 1 / 3), abs=0.015)


@MODELS
def test_half_a_cpu_beside_three_hogs_gets_a_fifth(model: CpuModelMaker) -> None:
    loads = [random_loop(0.5), hog(), hog(), hog()]
    half, *_ = rates(host(1, 4, load=loads, cpu_model=model), 300)
    assert half == pytest.approx((0.20, 0.60), abs=0.02)
    assert half.run / (half.run + half.idle) == pytest.approx(0.5, abs=0.015)


@MODELS
def test_a_hog_uses_all_that_a_short_loop_leaves(model: CpuModelMaker) -> None:
    """The loop waits out the rest of slices; the pCPU does not."""
    short, rest = rates(host(1, 2, load=[random_loop(0.25, 0.0005), hog()], cpu_model=model), 30)
    assert short.run == pytest.approx(0.12, abs=0.02)
    assert short.run + rest.run == pytest.approx(1.0, abs=0.002)


@MODELS
def test_who_has_little_to_do_is_not_long_in_the_way(model: CpuModelMaker) -> None:
    """Two loops of 0.37 get 0.32 each; short work beside them changes little, though it waits."""
    loads = [random_loop(0.37), random_loop(0.37), random_loop(0.19, 0.0001)]
    first, second, short = rates(host(1, 3, load=loads, cpu_model=model), 60)
    assert [first.run, second.run] == pytest.approx([0.32, 0.32], abs=0.01)
    assert [first.wait, second.wait] == pytest.approx([0.135, 0.135], abs=0.015)
    assert short.run < 0.1
    assert short.wait > 0.4


@MODELS
def test_short_work_on_a_pcpu_that_only_floating_vcpus_visit(model: CpuModelMaker) -> None:
    """What it meets there are their short runs: 0.7 wanted beside 1.2 of others on two pCPUs."""
    busy = SimVcpu(loop(0.7, 0.001), frozenset({0}))
    pinned = SimGuest("pinned", (busy,), None, uuid=uuid(99))
    floating = [SimGuest(f"g{n:02}", (SimVcpu(loop(0.1, 0.001)),), None) for n in range(12)]
    simulated = SimulatedHost(SimMachine(flat_topology(2)), [pinned, *floating], cpu_model=model)
    got = dict(zip(vcpus(simulated), rates(simulated, 60), strict=True))
    assert got.pop(VcpuKey(uuid(99), 0)) == pytest.approx((0.5, 0.285), abs=0.02)
    assert all(0.09 < other.run < 0.11 for other in got.values())


@MODELS
def test_three_hogs_on_two_cpus_are_served_alike_by_the_kernel(model: CpuModelMaker) -> None:
    shares = [r.run for r in rates(host(2, 3, load=hog(), cpu_model=model), 20)]
    assert jain(shares) >= 0.999
    assert sum(shares) == pytest.approx(2.0, abs=0.001)


@MODELS
def test_three_hogs_pinned_on_two_cpus_are_not(model: CpuModelMaker) -> None:
    shares = [r.run for r in rates(host(2, 3, load=hog(), pins=[0, 1, 0], cpu_model=model), 20)]
    assert shares == pytest.approx([0.5, 1.0, 0.5], abs=0.005)
    assert jain(shares) == pytest.approx(0.889, abs=0.002)


@MODELS
def test_a_lone_thread_gets_what_it_wants(model: CpuModelMaker) -> None:
    (alone,) = rates(host(1, 1, load=random_loop(0.37), cpu_model=model), 100)
    assert alone == pytest.approx((0.37, 0.0), abs=0.015)


@MODELS
def test_two_random_half_loops_meet_each_other_half_the_time(model: CpuModelMaker) -> None:
    """The machine-repair model's exact answer: each runs 0.4."""
    both = rates(host(1, 2, load=random_loop(0.5), cpu_model=model), 100)
    assert [r.run for r in both] == pytest.approx([0.4, 0.4], abs=0.015)


@MODELS
def test_arrivals_that_fit_are_all_served(model: CpuModelMaker) -> None:
    both = rates(host(1, 2, load=arrivals(0.4, 0.002), cpu_model=model), 60)
    assert [r.run for r in both] == pytest.approx([0.4, 0.4], abs=0.015)


@MODELS
def test_arrivals_that_do_not_fit_build_a_backlog_and_catch_up(model: CpuModelMaker) -> None:
    simulated = host(1, 3, load=arrivals(0.4, 0.002), cpu_model=model)
    assert [r.run for r in rates(simulated, 10)] == pytest.approx([1 / 3] * 3, abs=0.02)
    simulated.vanish(uuid(2))
    # Two were kept from 0.067 x 12 s of work each; both take 0.5 until that is done.
    caught_up = rates(simulated, 5, settle_s=0)
    assert [r.run for r in caught_up] == pytest.approx([0.5, 0.5], abs=0.02)
    later = rates(simulated, 20, settle_s=20)
    assert [r.run for r in later] == pytest.approx([0.4, 0.4], abs=0.03)


@MODELS
def test_shares_weigh_guests_not_vcpus(model: CpuModelMaker) -> None:
    """Guests with 2048 and 1024 shares; the first has two busy vCPUs on the same pCPU."""
    heavy = SimGuest(
        "heavy",
        (SimVcpu(hog()), SimVcpu(hog())),
        None,
        definition=GuestDefinition(cpu_shares=2048),
        uuid=uuid(0),
    )
    simulated = SimulatedHost(
        SimMachine(Topology((Pcpu(0, 0, 0, 0),))), [heavy, guest(1, hog())], cpu_model=model
    )
    first, second, other = rates(simulated)
    assert first.run + second.run == pytest.approx(2 / 3, abs=0.01)
    assert other.run == pytest.approx(1 / 3, abs=0.01)


@MODELS
@pytest.mark.parametrize("guests", [1, 2, 4, 16])
def test_nobody_waits_while_a_pcpu_idles_however_little_it_weighs(
    model: CpuModelMaker, guests: int
) -> None:
    """16 hogs of few guests weigh less than 40 guests' loops, but all fit on 32 pCPUs."""
    few = [
        SimGuest(f"h{i}", (SimVcpu(hog()),) * (16 // guests), None, uuid=uuid(i))
        for i in range(guests)
    ]
    many = [guest(100 + i, random_loop(0.05)) for i in range(40)]
    simulated = SimulatedHost(SimMachine(flat_topology(32)), few + many, cpu_model=model)
    shares = [r.run for r in rates(simulated, 10)]
    assert shares[:16] == pytest.approx([1.0] * 16, abs=0.005)
    assert sum(shares[16:]) == pytest.approx(2.0, abs=0.1)


@MODELS
def test_unpinned_threads_keep_away_from_light_pinned_ones(model: CpuModelMaker) -> None:
    """Eight hogs of one guest pinned to half of the pCPUs; the other half is free."""
    light = SimGuest(
        "light", tuple(SimVcpu(hog(), frozenset({i})) for i in range(8)), None, uuid=uuid(0)
    )
    free = [guest(1 + i, random_loop(0.5)) for i in range(8)]
    simulated = SimulatedHost(SimMachine(flat_topology(16)), [light, *free], cpu_model=model)
    shares = [r.run for r in rates(simulated, 20)]
    assert min(shares[:8]) >= 0.95
    assert sum(shares[8:]) == pytest.approx(4.0, abs=0.25)


@MODELS
def test_light_hogs_use_all_that_heavy_loops_leave(model: CpuModelMaker) -> None:
    light = SimGuest("light", (SimVcpu(hog()),) * 8, None, uuid=uuid(0))
    heavy = [guest(1 + i, random_loop(0.3)) for i in range(12)]
    simulated = SimulatedHost(SimMachine(flat_topology(8)), [light, *heavy], cpu_model=model)
    shares = [r.run for r in rates(simulated, 20)]
    assert sum(shares) == pytest.approx(8.0, abs=0.05)
    assert shares[:8] == pytest.approx([0.57] * 8, abs=0.05)


@MODELS
def test_a_quota_limits_and_is_seen_as_waiting(model: CpuModelMaker) -> None:
    limited = SimGuest(
        "limited", (SimVcpu(hog()),), None, definition=GuestDefinition(quota_ratio=0.5)
    )
    simulated = SimulatedHost(SimMachine(), [limited], cpu_model=model)
    assert rates(simulated) == [pytest.approx((0.5, 0.5), abs=0.01)]


@MODELS
def test_what_a_quota_leaves_others_get(model: CpuModelMaker) -> None:
    limited = SimGuest(
        "limited",
        (SimVcpu(hog(), frozenset({0})),),
        None,
        definition=GuestDefinition(quota_ratio=0.2),
        uuid=uuid(0),
    )
    simulated = SimulatedHost(SimMachine(), [limited, guest(1, hog(), pin=0)], cpu_model=model)
    assert [r.run for r in rates(simulated)] == pytest.approx([0.2, 0.8], abs=0.01)


# The machine


@MODELS
def test_eight_hogs_on_eight_cores_take_one_core_each(model: CpuModelMaker) -> None:
    simulated = host(layered_topology(cores=8, threads=2), 8, load=hog(), cpu_model=model)
    simulated.advance(10)
    assert sum(simulated.truth().work_s.values()) == pytest.approx(80.0, rel=0.01)


@MODELS
def test_smt_siblings_share_their_core(model: CpuModelMaker) -> None:
    """Both threads of one core busy: 2 x 0.62 cores' worth."""
    topology = layered_topology(cores=2, threads=2)
    simulated = host(topology, 2, load=hog(), pins=[0, 2], cpu_model=model)
    simulated.advance(10)
    assert sum(simulated.truth().work_s.values()) == pytest.approx(12.4, rel=0.01)


@MODELS
def test_two_on_one_core_spread_over_idle_cores_once_they_may(model: CpuModelMaker) -> None:
    topology = layered_topology(cores=4, threads=2)
    simulated = host(topology, 2, load=hog(), pins=[0, 4], cpu_model=model)
    simulated.advance(1)
    for number in (0, 1):
        simulated.pin(uuid(number), 0, frozenset(range(8)))
    before = sum(simulated.truth().work_s.values())
    simulated.advance(10)
    assert sum(simulated.truth().work_s.values()) - before == pytest.approx(20.0, rel=0.01)


@MODELS
def test_slow_cpus_make_loops_run_longer(model: CpuModelMaker) -> None:
    slow = Topology((Pcpu(0, 0, 0, 0), Pcpu(1, 1, 0, 0, speed_ratio=0.5)))
    simulated = host(slow, 2, load=random_loop(0.5), pins=[0, 1], cpu_model=model)
    fast, slowed = rates(simulated, 100)
    assert fast.run == pytest.approx(0.5, abs=0.02)
    assert slowed.run == pytest.approx(2 / 3, abs=0.02)
    work = simulated.truth().work_s
    assert work[VcpuKey(uuid(1), 0)] == pytest.approx(102 / 3, rel=0.05)


@MODELS
def test_remote_memory_costs_a_quarter_more(model: CpuModelMaker) -> None:
    near = SimGuest("near", (SimVcpu(hog(), frozenset({0})),), None, memory_node=0)
    far = SimGuest("far", (SimVcpu(hog(), frozenset({1})),), None, memory_node=1)
    simulated = SimulatedHost(SimMachine(layered_topology(2)), [near, far], cpu_model=model)
    simulated.advance(10)
    work = simulated.truth().work_s
    assert work[VcpuKey(simulated.uuid_of("near"), 0)] == pytest.approx(10.0)
    assert work[VcpuKey(simulated.uuid_of("far"), 0)] == pytest.approx(8.0)


@MODELS
def test_stolen_time_is_seen_as_waiting_and_steal(model: CpuModelMaker) -> None:
    machine = SimMachine(steal_ratio={0: 0.25})
    simulated = SimulatedHost(machine, [guest(0, hog(), pin=0)], cpu_model=model)
    assert rates(simulated) == [pytest.approx((0.75, 0.25), abs=0.001)]
    pcpu = simulated.sample(Scope.CPU, 1.0).pcpus[0]
    assert pcpu.steal_ns / (simulated.now_s * 1e9) == pytest.approx(0.25)
    assert pcpu.busy_ns / (simulated.now_s * 1e9) == pytest.approx(0.75, abs=0.001)


@MODELS
def test_the_hosts_own_work_competes_and_shows_on_its_cpu(model: CpuModelMaker) -> None:
    machine = SimMachine(other_work={0: hog()})
    simulated = SimulatedHost(machine, [guest(0, hog(), pin=0)], cpu_model=model)
    assert rates(simulated) == [pytest.approx((0.5, 0.5), abs=0.005)]
    snapshot = simulated.sample(Scope.CPU, 1.0)
    assert snapshot.pcpus[0].busy_ns / (simulated.now_s * 1e9) == pytest.approx(1.0, abs=0.001)
    assert [g.name for g in snapshot.guests] == ["g0"]


@MODELS
def test_threads_leave_a_cpu_that_goes_off_line_and_return(model: CpuModelMaker) -> None:
    """Hogs on pCPUs 0, 1 and 1, the host's own on 1; then all four share pCPU 0."""
    machine = SimMachine(flat_topology(2), other_work={1: hog()})
    hogs = [guest(0, hog(), pin=0), guest(1, hog(), pin=1), guest(2, hog(), pin=1)]
    simulated = SimulatedHost(machine, hogs, cpu_model=model)
    assert [r.run for r in rates(simulated)] == pytest.approx([1, 1 / 3, 1 / 3], abs=0.01)
    simulated.set_online(1, online=False)
    assert [r.run for r in rates(simulated)] == pytest.approx([0.25] * 3, abs=0.01)
    simulated.set_online(1, online=True)
    assert [r.run for r in rates(simulated)] == pytest.approx([1, 1 / 3, 1 / 3], abs=0.01)
    assert simulated.sample(Scope.CPU, 1.0).pcpus[1].busy_ns == pytest.approx(44e9, rel=0.01)


@MODELS
@pytest.mark.parametrize(("target", "lost_s"), [(4, 0.0001), (1, 0.0005), (2, 0.006), (3, 0.046)])
def test_a_move_costs_work_by_its_distance(
    model: CpuModelMaker, target: int, lost_s: float
) -> None:
    pcpus = tuple(
        Pcpu(id=i, core=core, llc=llc, node=node)
        for i, core, llc, node in [
            (0, 0, 0, 0), (1, 1, 0, 0), (2, 2, 2, 0), (3, 3, 3, 1), (4, 0, 0, 0),
        ]
    )  # fmt: skip
    simulated = host(Topology(pcpus), 1, load=hog(), pins=0, cpu_model=model)
    simulated.advance(1)
    simulated.pin(uuid(0), 0, frozenset({target}))
    simulated.advance(1)
    (work_s,) = simulated.truth().work_s.values()
    assert 2.0 - work_s == pytest.approx(lost_s, abs=1e-6)
    (vcpu,) = simulated.sample(Scope.CPU, 1.0).guests[0].vcpus
    assert vcpu.run_ns == pytest.approx(2e9, abs=1e5)


def test_kernel_moves_lose_little_work_in_the_event_model() -> None:
    """A migration every 32 ms a pCPU at 0.5 ms each: between 1 and 2 % of two pCPUs."""
    simulated = host(2, 3, load=hog(), cpu_model=EventCpu)
    simulated.advance(20)
    lost_ratio = 1 - sum(simulated.truth().work_s.values()) / 40
    assert 0.005 < lost_ratio < 0.02


# schedstat's artefacts


def test_a_wait_is_credited_when_the_thread_runs_again() -> None:
    """Eight hogs in turns of 3 ms: for 21 ms a waiting thread's counters stand still."""
    simulated = host(1, 8, load=hog(), cpu_model=EventCpu)
    simulated.advance(1.0)
    still = 0.0
    before = _counters(simulated)
    for _ in range(21):
        simulated.advance(0.001)
        after = _counters(simulated)
        still += before == after
        before = after
    assert still >= 15


def test_the_fluid_model_credits_waits_late_as_well() -> None:
    simulated = host(1, 8, load=hog())
    simulated.advance(1.0)
    late = SimMachine(kernel=Kernel(slice_s=0.0))
    ideal = SimulatedHost(late, [guest(i, hog(), pin=0) for i in range(8)])
    ideal.advance(1.0)
    seen = [v.wait_ns or 0 for g in simulated.sample(Scope.CPU, 1).guests for v in g.vcpus]
    true = [v.wait_ns or 0 for g in ideal.sample(Scope.CPU, 1).guests for v in g.vcpus]
    behind_ms = [(t - s) / 1e6 for s, t in zip(seen, true, strict=True)]
    assert all(-0.01 <= ms <= 24 for ms in behind_ms)
    assert max(behind_ms) > 10


def _counters(simulated: SimulatedHost) -> tuple[int, int | None]:
    (vcpu,) = simulated.sample(Scope.CPU, 1.0).guests[0].vcpus
    return vcpu.run_ns, vcpu.wait_ns


# The two models against each other

SCENES: dict[str, tuple[int, Sequence[Workload], Sequence[int | None]]] = {
    "short loop beside a hog": (1, [random_loop(0.2, 0.001), hog()], [0, 0]),
    "eight medium loops on one of four": (4, [random_loop(0.37, 0.002)] * 8, [0] * 8),
    "two medium loops on each of four": (4, [random_loop(0.37)] * 8, [0, 1, 2, 3] * 2),
    "eight medium loops unpinned": (4, [random_loop(0.37)] * 8, [None] * 8),
    "heavy and light together": (
        4,
        [random_loop(0.6), random_loop(0.22)] * 4,
        [0, 0, 1, 1, 2, 2, 3, 3],
    ),
    "heavy and light unpinned": (4, [random_loop(0.6), random_loop(0.22)] * 4, [None] * 8),
    "one hog pinned, four not": (4, [hog()] * 5, [0, None, None, None, None]),
    "six hogs on one, three free": (4, [hog()] * 9, [0] * 6 + [None] * 3),
    "overload of loops unpinned": (2, [random_loop(0.6)] * 6, [None] * 6),
    "many small loops unpinned": (4, [random_loop(0.2)] * 16, [None] * 16),
    "mixed masks": (3, [random_loop(0.5)] * 3 + [hog(), idle()], [0, 1, None, None, 2]),
    "arrivals and hogs": (2, [arrivals(0.3, 0.005)] * 2 + [hog()] * 2, [0, 1, 0, 1]),
}


@pytest.mark.parametrize("scene", SCENES)
def test_fluid_and_event_models_agree(scene: str) -> None:
    """Run time within 0.05 of a pCPU a thread and 0.02 on average, waiting within 0.08."""
    pcpus, loads, pins = SCENES[scene]
    fluid, event = (
        rates(host(pcpus, len(loads), load=loads, pins=pins, cpu_model=model), 40)
        for model in (FluidCpu, EventCpu)
    )
    runs = [f.run - e.run for f, e in zip(fluid, event, strict=True)]
    waits = [f.wait - e.wait for f, e in zip(fluid, event, strict=True)]
    assert max(map(abs, runs)) <= 0.05
    assert abs(sum(runs)) / len(runs) <= 0.02
    assert max(map(abs, waits)) <= 0.08
