"""What a pCPU has left: busy time that no vCPU explains is other work."""

from dataclasses import replace

import pytest

from tests.cpu.test_demand import snapshot
from virtbalance.cpu.capacity import OtherWork, measure_other_work
from virtbalance.cpu.settings import DemandSettings
from virtbalance.model.topology import flat_topology

SETTINGS = DemandSettings(sample_s=1.0)


def capacity(
    *, run: float, busy: tuple[float, float], affinity: frozenset[int], seconds: int = 4
) -> dict[int, float]:
    other = OtherWork()
    for now in range(seconds):
        other = measure_other_work(
            other,
            snapshot(
                100 + now,
                run * now,
                0.0,
                affinity=affinity,
                busy_s=(busy[0] * now, busy[1] * now),
            ),
            SETTINGS,
        )
    return other.capacity(flat_topology(2))


def test_work_that_no_vcpu_explains_lowers_capacity() -> None:
    seen = capacity(run=0.5, busy=(0.8, 0.1), affinity=frozenset({0}))
    # it keeps pCPU 0 busier than the average of 0.45, so it is at home; the 0.1 of pCPU 1 floats
    assert seen == pytest.approx({0: 1 - 0.3 - 0.05, 1: 1 - 0.05})


def test_work_that_went_where_there_is_room_takes_it_from_nobody() -> None:
    """Two heavy vCPUs on one pCPU, two light ones and their emulators' threads on the other."""
    other = OtherWork(ratio={0: 0.10, 1: 0.34}, busy_ratio={0: 0.98, 1: 0.84})
    assert other.capacity(flat_topology(2)) == pytest.approx({0: 0.78, 1: 0.78})


def test_where_all_is_busy_half_of_the_other_work_is_at_home() -> None:
    other = OtherWork(ratio={0: 0.4, 1: 0.0}, busy_ratio={0: 1.0, 1: 1.0})
    assert other.capacity(flat_topology(2)) == pytest.approx({0: 0.7, 1: 0.9})


def test_a_floating_vcpu_is_explained_over_all_its_cpus() -> None:
    seen = capacity(run=0.6, busy=(0.4, 0.2), affinity=frozenset({0, 1}))
    assert seen == pytest.approx({0: 1.0, 1: 1.0})


def test_a_vcpu_that_was_moved_in_between_is_no_other_work() -> None:
    other = OtherWork()
    for now, cpu, busy in ((0, 0, (0.0, 0.0)), (1, 0, (1.0, 0.0)), (2, 1, (1.1, 0.9))):
        other = measure_other_work(
            other,
            snapshot(100 + now, now, 0.0, affinity=frozenset({cpu}), busy_s=busy),
            SETTINGS,
        )
    assert other.capacity(flat_topology(2)) == pytest.approx({0: 1.0, 1: 1.0})


def test_other_work_competes_but_never_owns_a_pcpu() -> None:
    assert capacity(run=0.0, busy=(1.0, 0.0), affinity=frozenset({1}))[0] == 0.5


def test_a_reading_right_after_another_is_passed_over() -> None:
    """Ten milliseconds of busy time in two look like half a pCPU, and are one tick of the clock."""
    other = OtherWork()
    for now, busy in ((0.0, 0.0), (0.02, 0.01), (1.0, 0.01)):
        other = measure_other_work(
            other, snapshot(100 + now, 0.0, 0.0, busy_s=(busy, 0.0)), SETTINGS
        )
    assert other.ratio[0] == pytest.approx(0.01)


def test_other_work_is_forgotten_by_half_in_four_seconds() -> None:
    before = OtherWork(ratio={0: 0.8}, taken_ns=100_000_000_000, busy_ns={0: 0, 1: 0})
    after = before
    for now in range(1, 5):
        after = measure_other_work(
            after, snapshot(100 + now, 0.0, 0.0, busy_s=(0.0, 0.0)), SETTINGS
        )
    assert after.ratio[0] == pytest.approx(0.4)


def test_a_slow_cpu_gives_less() -> None:
    topology = flat_topology(2)
    slow = replace(topology, pcpus=(topology.pcpus[0], replace(topology.pcpus[1], speed_ratio=0.5)))
    assert OtherWork({1: 0.2}).capacity(slow) == pytest.approx({0: 0.95, 1: 0.425})
