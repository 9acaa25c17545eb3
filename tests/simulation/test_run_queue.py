"""Who runs next on one pCPU: EEVDF's rule."""

import random

import pytest

from virtbalance.model.guest import VcpuKey
from virtbalance.simulation.cpu_model import Thread
from virtbalance.simulation.run_queue import Group, RunQueue, Task
from virtbalance.simulation.workload import HOG, Piece, hog


def task(name: str, *, shares: float = 1.0, virtual_s: float = 0.0) -> Task:
    thread = Thread(VcpuKey(name, 0), hog(), random.Random(1), name, name, shares)
    made = Task(thread, Group(), frozenset({0}), Piece(HOG), 0)
    made.virtual_s = virtual_s
    made.deadline_s = virtual_s + 0.003 / shares
    return made


def queue(*waiting: Task) -> RunQueue:
    return RunQueue(0, slice_s=0.003, speed=1.0, available=1.0, waiting=list(waiting))


def test_the_earliest_deadline_runs() -> None:
    """Both are at V; the heavier one's slice is over sooner in virtual time."""
    light, heavy = task("light"), task("heavy", shares=2.0)
    assert queue(light, heavy).pick(1.0) is heavy


def test_who_is_ahead_of_the_others_waits_however_early_his_deadline() -> None:
    """V = (4 x 0.002 + 0) / 5 = 0.0016: at 0.002 the heavy one is ahead of it."""
    behind, ahead = task("behind"), task("ahead", shares=4.0, virtual_s=0.002)
    assert ahead.deadline_s < behind.deadline_s
    assert queue(behind, ahead).pick(1.0) is behind


def test_what_a_thread_was_behind_it_keeps_over_a_sleep() -> None:
    sleeper, other = task("sleeper", virtual_s=0.006), task("other", virtual_s=0.010)
    runs = queue(sleeper, other)
    runs.leave(sleeper, 1.0)
    other.virtual_s = 0.050
    runs.enter(sleeper, 2.0)
    # V was 0.008, the sleeper 0.002 behind it; V is now the other's 0.050.
    assert sleeper.virtual_s == pytest.approx(0.048)


def test_but_no_more_than_a_slice() -> None:
    sleeper, other = task("sleeper", virtual_s=0.0), task("other", virtual_s=1.0)
    runs = queue(sleeper, other)
    runs.leave(sleeper, 1.0)
    runs.enter(sleeper, 2.0)
    assert sleeper.virtual_s == pytest.approx(1.0 - 0.003)


def test_waiting_is_credited_when_the_thread_runs() -> None:
    first = task("first")
    runs = queue()
    runs.enter(first, 1.0)
    assert first.wait_s == 0.0
    runs.pick(1.5)
    assert first.wait_s == pytest.approx(0.5)


def test_run_time_becomes_virtual_time_by_weight_and_work_by_speed() -> None:
    heavy = task("heavy", shares=2.0)
    heavy.debt_s = 0.2
    heavy.left_s = 5.0
    runs = queue(heavy)
    runs.pick(1.0)
    runs.settle(2.0, speed=0.5)
    assert heavy.run_s == pytest.approx(1.0)
    assert heavy.virtual_s == pytest.approx(0.5)
    # 0.2 s of cold caches, 0.8 s of work at half speed.
    assert heavy.work_s == pytest.approx(0.4)
    assert heavy.left_s == pytest.approx(4.6)


def test_slices_are_renewed_in_whole_numbers() -> None:
    alone = task("alone")
    runs = queue(alone)
    runs.pick(0.0)
    runs.settle(0.010, speed=1.0)
    assert runs.renew_slices()
    assert alone.deadline_s == pytest.approx(0.012)
    assert not runs.renew_slices()
