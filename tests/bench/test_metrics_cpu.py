"""CPU metrics by worked examples."""

from dataclasses import replace

import pytest

from tests.bench.recordings import cpu_recording, note
from virtbalance.bench.metrics import computed
from virtbalance.bench.recording import Recording
from virtbalance.model.guest import RoleName, VcpuKey
from virtbalance.model.topology import Pcpu, Topology
from virtbalance.simulation.machine import layered_topology


def value(recording: Recording, name: str) -> float | None:
    return computed(RoleName.CPU)[name](recording)


def test_deviation_of_pcpu_use_is_that_of_its_mean_over_ten_seconds() -> None:
    # 0.8 and 0.4 in turn on pCPU 0 are 0.6 on average; pCPU 1 has 0.5: mean 0.55, 5 points apart.
    recording = cpu_recording({"a": [0.8, 0.4] * 5, "b": [0.5] * 10}, {"a": [0], "b": [1]})
    assert value(recording, "pcpu_sd_points") == pytest.approx(5.0)
    assert value(recording, "pcpu_sd_relative") == pytest.approx(0.05 / 0.55)


def test_what_may_run_anywhere_counts_where_pcpus_were_busy() -> None:
    recording = cpu_recording({"a": [0.6] * 10, "b": [0.6] * 10}, {"a": [0], "b": [0, 1]})
    # pCPU 0 is busy 0.9, of which 0.6 is pinned; pCPU 1 is busy 0.3: b's 0.6 is 0.3 and 0.3.
    assert value(recording, "pcpu_sd_points") == pytest.approx(30.0)


def test_an_idle_host_is_even_in_relative_terms() -> None:
    recording = cpu_recording({"a": [0.02] * 10}, {"a": [0]})
    assert value(recording, "pcpu_sd_relative") == 0.0


def test_time_to_balance_is_the_beginning_of_what_stays_even() -> None:
    uneven, even = [1.0] * 7, [0.5] * 20
    recording = cpu_recording({"a": uneven + even, "b": [0.0] * 7 + even}, {"a": [0], "b": [1]})
    # A window of 10 s may hold one uneven second (means 0.55 and 0.45), not two.
    assert value(recording, "time_to_balance_s") == 7.0
    assert value(recording.between(None, 12), "time_to_balance_s") is None


def test_gap_to_the_best_partition() -> None:
    # Demands 0.4, 0.4, 0.2 on two pCPUs: best 0.6 and 0.4; as it is, 0.8 and 0.2.
    recording = cpu_recording(
        {"a": [0.4] * 10, "b": [0.4] * 10, "c": [0.2] * 10}, {"a": [0], "b": [0], "c": [1]}
    )
    assert value(recording, "partition_gap_points") == pytest.approx(20.0)
    assert value(recording, "makespan_ratio") == pytest.approx(0.8 / 0.5)


def test_fairness_of_three_hogs_pinned_on_two_pcpus() -> None:
    recording = cpu_recording(
        {"a": [0.5] * 10, "b": [1.0] * 10, "c": [0.5] * 10},
        {"a": [0], "b": [1], "c": [0]},
        demand={"a": 1.0, "b": 1.0, "c": 1.0},
    )
    # Entitled 2/3 each: the pair lacks 1/6 each of 2 in all.
    assert value(recording, "shortfall_percent") == pytest.approx(100 * (1 / 3) / 2)
    assert value(recording, "max_min_error_percent") == pytest.approx(100 * (2 / 3) / 4)
    assert value(recording, "worst_mean") == pytest.approx(0.75)
    assert value(recording, "jain_run") == pytest.approx(0.8889, abs=1e-4)


def test_fairness_goes_by_weight() -> None:
    recording = cpu_recording(
        {"heavy": [0.8] * 4, "light": [0.2] * 4},
        {"heavy": [0], "light": [0]},
        demand={"heavy": 1.0, "light": 1.0},
        weights={"heavy": 4.0, "light": 1.0},
        pcpus=1,
    )
    assert value(recording, "max_min_error_percent") == pytest.approx(0.0, abs=1e-9)


def test_arrears_of_arrivals_add_to_the_demand() -> None:
    # 0.5 a second arrives; 0.2 is done in the first second, so 0.8 is wanted in the second.
    recording = cpu_recording(
        {"a": [0.2, 0.8]}, {"a": [0]}, demand={"a": 0.5}, open_guests=frozenset({"a"})
    )
    assert recording.demand[:, 0].tolist() == pytest.approx([0.5, 0.8])
    assert value(recording, "shortfall_percent") == pytest.approx(100 * 0.3 / 1.3)


def test_idle_while_waiting_is_the_smaller_of_both() -> None:
    recording = cpu_recording(
        {"a": [0.5] * 2, "b": [0.5] * 2},
        {"a": [0], "b": [0]},
        wait={"a": 0.2, "b": 0.1},
        demand={"a": 1.0, "b": 1.0},
    )
    # pCPU 1 idles, 0.3 wait: 0.3 of 2 pCPUs.
    assert value(recording, "idle_while_waiting_percent") == pytest.approx(15.0)


def test_pins_are_counted_and_those_undone() -> None:
    moves = [{"a": [0]}, {"a": [1]}, {"a": [0], "b": [1]}, {}, {"b": [0]}]
    ticks = [note(float(at), pins) for at, pins in enumerate(moves)]
    recording = cpu_recording({"a": [0.5] * 5, "b": [0.5] * 5}, {"a": [0], "b": [1]}, ticks=ticks)
    assert value(recording, "pin_changes") == 5
    assert value(recording, "pins_interval") == 1.0
    assert value(recording, "pins_undone") == 1  # a was back on 0 after two decisions
    assert value(recording.between(2.5, None), "pin_changes") == 1


def test_moves_to_another_cache_and_node_are_told_apart() -> None:
    topology = layered_topology(nodes=2, caches=2, cores=1)  # pCPU 0, 1 | 2, 3: a cache each
    ticks = [note(float(at), {"a": [cpu]}) for at, cpu in enumerate([0, 1, 2, 2])]
    recording = cpu_recording({"a": [0.5] * 4}, {"a": [2]}, ticks=ticks, topology=topology)
    assert value(recording, "pins_cache") == 1
    assert value(recording, "pins_node") == 1


def test_run_time_away_from_memory() -> None:
    topology = layered_topology(nodes=2, cores=1)
    recording = cpu_recording(
        {"near": [0.9] * 2, "far": [0.3] * 2},
        {"near": [0], "far": [0]},
        topology=topology,
        nodes={"near": 0, "far": 1},
    )
    assert value(recording, "remote_percent") == pytest.approx(25.0)


def test_a_first_pin_away_from_where_a_guest_started_is_a_move() -> None:
    """It starts on node 0 and goes to node 1 at 3 s, back at 5 s; the other stays."""
    away = replace(
        cpu_recording(
            {"a": [0.5] * 6, "b": [0.5] * 6},
            {"a": [0], "b": [1]},
            topology=layered_topology(nodes=2, cores=2),
            ticks=[note(3.0, {"a": [2]}), note(5.0, {"a": [0]})],
        ),
        masks=tuple(
            {VcpuKey("a", 0): frozenset({home}), VcpuKey("b", 0): frozenset({1})}
            for home in (0, 0, 0, 2, 2, 0)
        ),
    )
    assert value(away, "pins_node") == 2
    assert value(away, "node_moves") == 2
    assert value(away, "pins_undone") == 0


def test_offline_pcpus_do_not_count() -> None:
    pcpus = tuple(Pcpu(i, i, 0, 0, online=i < 2) for i in range(4))
    recording = cpu_recording(
        {"a": [0.5] * 10, "b": [0.5] * 10}, {"a": [0], "b": [1]}, topology=Topology(pcpus)
    )
    assert value(recording, "pcpu_sd_points") == pytest.approx(0.0)


def test_failures_are_counted() -> None:
    ticks = [
        replace(note(1.0), events={"policy-failed": 1}),
        replace(note(2.0), amendments={"unknown": 2, "budget": 3}, refused=1),
    ]
    recording = cpu_recording({"a": [0.5] * 3}, {"a": [0]}, ticks=ticks)
    assert value(recording, "policy_failures") == 1
    assert value(recording, "nonsense") == 2
    assert value(recording, "refused") == 1


def test_estimated_demand_is_held_against_the_true_one() -> None:
    key = VcpuKey("a", 0)
    ticks = [replace(note(at), demand={key: value}) for at, value in ((1.0, 0.4), (2.0, 0.7))]
    recording = cpu_recording({"a": [0.5] * 3}, {"a": [0]}, ticks=ticks)
    assert value(recording, "demand_error") == pytest.approx(0.15)


def test_misplaced_is_what_lies_beyond_a_pcpu() -> None:
    """0.8 and 0.6 on pCPU 0, 0.2 on pCPU 1, and 0.6 that may run on both: 0.4 of 2.0 too much."""
    recording = cpu_recording(
        {"a": [0.5] * 2, "b": [0.5] * 2, "c": [0.2] * 2, "d": [0.6] * 2},
        {"a": [0], "b": [0], "c": [1], "d": [0, 1]},
        demand={"a": 0.8, "b": 0.6, "c": 0.2, "d": 0.4},
    )
    assert value(recording, "misplaced_percent") == pytest.approx(20.0)


def test_nothing_is_misplaced_where_sets_hold_it() -> None:
    """Four of 0.9 on sets of two: the kernel can serve them; three pinned to two can't be."""
    four = {name: [0.9] * 2 for name in "abcd"}
    sets = {"a": [0, 1], "b": [0, 1], "c": [2, 3], "d": [2, 3]}
    assert value(cpu_recording(four, sets, pcpus=4), "misplaced_percent") == pytest.approx(0.0)
    sets["c"] = [0, 1]
    recording = cpu_recording(four, sets, pcpus=4)
    assert value(recording, "misplaced_percent") == pytest.approx(0.7 / 3.6 * 100)


def test_smt_siblings_can_do_less_together() -> None:
    """Two of 0.9 on one core of two threads: 2 x 0.62 is what it can do."""
    recording = cpu_recording(
        {"a": [0.9] * 2, "b": [0.9] * 2},
        {"a": [0], "b": [2]},
        topology=layered_topology(cores=2, threads=2),
    )
    assert value(recording, "misplaced_percent") == pytest.approx((1.8 - 1.24) / 1.8 * 100)
