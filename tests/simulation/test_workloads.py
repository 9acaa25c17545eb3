"""Workloads: when which load is going on, and what shows of it."""

import itertools

import pytest

from tests.simulation.rates import rates
from virtbalance.model.guest import VcpuKey
from virtbalance.simulation.build import guest, host, uuid
from virtbalance.simulation.event import EventCpu
from virtbalance.simulation.fluid import FluidCpu
from virtbalance.simulation.streams import Streams
from virtbalance.simulation.workload import (
    HOG,
    IDLE,
    Beginning,
    Bursts,
    Closed,
    Noise,
    Open,
    Phase,
    Phases,
    Piece,
    Spread,
    Trace,
    Workload,
    hog,
    loop,
)
from virtbalance.simulation.world import CpuModelMaker

MODELS = pytest.mark.parametrize("model", [FluidCpu, EventCpu])


def first(workload: Workload, count: int, started_s: float = 0.0, thread: str = "t") -> list[Piece]:
    begin = Beginning(started_s, Streams(1), thread)
    return list(itertools.islice(workload.pieces(begin), count))


def test_phases_follow_each_other_and_the_last_one_stays() -> None:
    phases = Phases((Phase(10, IDLE), Phase(5, HOG), Phase(1, Open(0.3))))
    assert first(phases, 9, started_s=2.0) == [
        Piece(IDLE, 12.0),
        Piece(HOG, 17.0),
        Piece(Open(0.3)),
    ]


def test_phases_may_repeat() -> None:
    phases = Phases((Phase(10, IDLE), Phase(5, HOG)), repeat=True)
    assert [piece.until_s for piece in first(phases, 4)] == [10.0, 15.0, 25.0, 30.0]


def test_a_trace_is_played_as_duties_or_as_arrivals() -> None:
    duties = first(Trace((0.2, 1.3, 0.0), 4.0), 4)
    assert [piece.load for piece in duties] == [Closed(0.2), Closed(1.0), IDLE, Closed(0.2)]
    assert [piece.until_s for piece in duties] == [4.0, 8.0, 12.0, 16.0]
    opened = first(Trace((0.2, 1.3), 4.0, open=True), 2)
    assert [piece.load for piece in opened] == [Open(0.2), Open(1.3)]


def test_noise_has_its_mean_and_deviation() -> None:
    loads = [piece.load.demand_ratio for piece in first(Noise(0.5, 0.1), 2000)]
    mean = sum(loads) / len(loads)
    deviation = (sum((x - mean) ** 2 for x in loads) / len(loads)) ** 0.5
    assert mean == pytest.approx(0.5, abs=0.01)
    assert deviation == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("mean", [0.02, 0.5, 0.97])
def test_noise_keeps_its_mean_near_nothing_and_near_all(mean: float) -> None:
    loads = [piece.load.demand_ratio for piece in first(Noise(mean, 0.05), 4000)]
    assert sum(loads) / len(loads) == pytest.approx(mean, abs=0.002)


def test_bursts_of_a_group_come_together_and_others_do_not() -> None:
    together = Bursts(1.0, 2.0, group="a")
    assert first(together, 50, thread="x") == first(together, 50, started_s=3.0, thread="y")
    alone = Bursts(1.0, 2.0)
    assert first(alone, 50, thread="x") != first(alone, 50, thread="y")


@pytest.mark.parametrize("spread", [Spread.EXPONENTIAL, Spread.LOGNORMAL])
def test_random_lengths_have_their_mean_and_as_much_deviation(spread: Spread) -> None:
    source = Streams(1).stream("test")
    draws = [spread.draw(2.0, source) for _ in range(40_000)]
    mean = sum(draws) / len(draws)
    deviation = (sum((x - mean) ** 2 for x in draws) / len(draws)) ** 0.5
    assert mean == pytest.approx(2.0, rel=0.03)
    assert deviation == pytest.approx(2.0, rel=0.1)


@pytest.mark.parametrize("duty", [0.0, 1.2, -0.1])
def test_a_duty_must_be_a_share(duty: float) -> None:
    with pytest.raises(ValueError, match="duty"):
        Closed(duty)


@MODELS
def test_a_change_of_phase_is_seen_at_its_time(model: CpuModelMaker) -> None:
    phases = Phases((Phase(5, IDLE), Phase(5, HOG), Phase(1, IDLE)))
    simulated = host(1, 1, load=phases, cpu_model=model)
    simulated.advance(20)
    assert simulated.truth().work_s[VcpuKey(uuid(0), 0)] == pytest.approx(5.0, abs=0.001)
    assert simulated.truth().demand_ratio[VcpuKey(uuid(0), 0)] == 0.0


@MODELS
def test_phases_begin_with_the_guest(model: CpuModelMaker) -> None:
    """A guest that comes at 7 s is idle until 12 s."""
    simulated = host(1, 0, cpu_model=model)
    late = guest(0, Phases((Phase(5, IDLE), Phase(1, HOG))))
    simulated.at(7.0, lambda: simulated.start(late))
    simulated.advance(15)
    assert simulated.truth().work_s[VcpuKey(uuid(0), 0)] == pytest.approx(3.0, abs=0.001)


@MODELS
@pytest.mark.parametrize("work_s", [0.05, 0.5, 5.0])
def test_long_cycles_keep_their_duty(model: CpuModelMaker, work_s: float) -> None:
    load = loop(0.5, work_s, Spread.EXPONENTIAL)
    shares = rates(host(8, 8, load=load, pins=list(range(8)), cpu_model=model), 400)
    assert sum(rate.run for rate in shares) / 8 == pytest.approx(0.5, abs=0.06)
    assert all(rate.wait < 0.001 for rate in shares)


@MODELS
def test_long_cycles_of_fixed_length_keep_their_duty_off_the_grid(model: CpuModelMaker) -> None:
    """0.17 s of work and 0.26 s of thought do not fit steps of 0.1 s."""
    (rate,) = rates(host(1, 1, load=loop(0.17 / 0.43, 0.17), cpu_model=model), 100)
    assert rate.run == pytest.approx(0.17 / 0.43, abs=0.005)


@MODELS
@pytest.mark.parametrize("duty", [0.003, 0.01, 0.035, 0.3])
def test_small_duties_are_kept_over_changes_of_load(model: CpuModelMaker, duty: float) -> None:
    """Work of 10 ms: at 0.003 that is one in 3.3 s, while the duty is drawn anew each second."""
    noise = Noise(duty, duty / 4)
    shares = rates(host(20, 20, load=noise, pins=list(range(20)), cpu_model=model), 60)
    assert sum(rate.run for rate in shares) / 20 == pytest.approx(duty, rel=0.05)


def test_long_cycles_are_seen_as_work_and_thought_in_turn() -> None:
    simulated = host(1, 1, load=loop(0.5, 2.0))
    seen = [rates(simulated, 0.5, settle_s=0.0)[0].run for _ in range(40)]
    assert sum(run > 0.99 for run in seen) >= 14
    assert sum(run < 0.01 for run in seen) >= 14


@MODELS
def test_a_paused_hog_leaves_its_cpu_to_the_other(model: CpuModelMaker) -> None:
    simulated = host(1, 2, load=hog(), cpu_model=model)
    simulated.advance(2)
    simulated.pause(uuid(0))
    paused, other = rates(simulated, 5, settle_s=0.5)
    assert (paused.run, paused.wait) == (0.0, 0.0)
    assert other.run == pytest.approx(1.0, abs=0.001)
