"""Descriptors held open on real threads: our own."""

import os
import resource
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hypervisor import fakes
from virtbalance.hypervisor.schedstat import GuestThreads, read_run_ns

PROC = Path("/proc")


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def test_run_time_affinity_and_read_time() -> None:
    threads = GuestThreads(os.getpid(), {3: threading.get_native_id()}, PROC)
    before_ns = time.monotonic_ns()
    (first,) = threads.sample()
    sum(range(300_000))
    (second,) = threads.sample()
    assert (first.index, first.realtime) == (3, False)
    assert before_ns <= first.read_ns < second.read_ns <= time.monotonic_ns()
    assert second.run_ns > first.run_ns
    assert second.wait_ns is not None
    assert first.affinity == frozenset(os.sched_getaffinity(0))
    threads.close()


def test_a_thread_that_ended_is_noticed_at_the_next_look(
    sleeper: subprocess.Popen[bytes],
) -> None:
    threads = GuestThreads(sleeper.pid, {0: sleeper.pid}, PROC)
    assert len(threads.sample()) == 1
    sleeper.kill()
    sleeper.wait()
    with pytest.raises(ProcessLookupError):
        threads.sample()
    threads.close()


def test_the_others_are_still_seen_when_one_thread_has_ended() -> None:
    end = threading.Event()
    brief = threading.Thread(target=end.wait)
    brief.start()
    assert brief.native_id is not None
    ids = {0: threading.get_native_id(), 1: brief.native_id}
    threads = GuestThreads(os.getpid(), ids, PROC)
    assert ([s.index for s in threads.sample()], threads.complete) == ([0, 1], True)
    end.set()
    brief.join()
    while Path("/proc/self/task", str(brief.native_id)).exists():
        time.sleep(0.01)
    (left,) = threads.sample()
    assert (left.index, threads.complete) == (0, False)
    assert left.affinity == frozenset(os.sched_getaffinity(0))
    threads.close()


def test_affinity_is_looked_at_every_time(sleeper: subprocess.Popen[bytes]) -> None:
    threads = GuestThreads(sleeper.pid, {0: sleeper.pid}, PROC)
    os.sched_setaffinity(sleeper.pid, {0})
    assert threads.sample()[0].affinity == frozenset({0})
    threads.close()


def test_realtime_threads_are_marked(sleeper: subprocess.Popen[bytes]) -> None:
    try:
        os.sched_setscheduler(sleeper.pid, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        pytest.skip("may not set a realtime class here")
    threads = GuestThreads(sleeper.pid, {0: sleeper.pid}, PROC)
    assert threads.sample()[0].realtime
    threads.close()


def test_a_change_of_class_is_told_once(
    sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = GuestThreads(sleeper.pid, {0: sleeper.pid}, PROC)
    assert not threads.classes_changed()
    for scheduler, is_realtime in ((os.SCHED_FIFO, True), (os.SCHED_OTHER, False)):
        monkeypatch.setattr(os, "sched_getscheduler", lambda _, now=scheduler: now)
        assert threads.classes_changed()
        assert threads.sample()[0].realtime is is_realtime
        assert not threads.classes_changed()
    threads.close()


def test_nothing_stays_open_when_a_thread_is_missing() -> None:
    own, nobody = threading.get_native_id(), 2**22 - 1
    folder = PROC / str(os.getpid()) / "task" / str(own)
    with pytest.raises(OSError, match=r"No such (file|process)"):
        GuestThreads(os.getpid(), {0: own, 1: nobody}, PROC)
    assert str(folder / "schedstat") not in fakes.open_below(folder)


def test_the_limit_of_open_files_is_raised_when_met() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 512:
        pytest.skip("the hard limit is too low")
    own = threading.get_native_id()
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        threads = GuestThreads(os.getpid(), dict.fromkeys(range(200), own), PROC)
        assert len(threads.sample()) == 200
        threads.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_reading_once() -> None:
    assert (read_run_ns(os.getpid(), threading.get_native_id(), PROC) or 0) > 0
    assert read_run_ns(os.getpid(), 2**22 - 1, PROC) is None
