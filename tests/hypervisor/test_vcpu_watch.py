"""vCPU threads that come later, played by threads of our own."""

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from virtbalance.hypervisor.vcpu_watch import VcpuWatch

PROC = Path("/proc")


class Threads:
    """Threads under names of QEMU's."""

    def __init__(self) -> None:
        self._end = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, name: str) -> int:
        thread = threading.Thread(target=self._end.wait, daemon=True)
        thread.start()
        self._threads.append(thread)
        assert thread.native_id is not None
        self.rename(thread.native_id, name)
        return thread.native_id

    def rename(self, thread_id: int, name: str) -> None:
        (PROC / "self/task" / str(thread_id) / "comm").write_text(name)

    def finish(self) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def threads() -> Iterator[Threads]:
    threads = Threads()
    yield threads
    threads.finish()


def watch(*known: int) -> VcpuWatch:
    return VcpuWatch(os.getpid(), known, PROC)


def test_known_vcpus_are_no_news(threads: Threads) -> None:
    first = threads.start("CPU 0/KVM")
    threads.start("IO mon_iothread")
    watching = watch(first)
    assert [watching.sees_another() for _ in range(3)] == [False] * 3
    watching.close()


def test_another_vcpu_is_told_of_until_it_is_known(threads: Threads) -> None:
    first = threads.start("CPU 0/KVM")
    watching = watch(first)
    assert not watching.sees_another()
    second = threads.start("CPU 5/KVM")
    assert [watching.sees_another() for _ in range(3)] == [True] * 3
    watching.close()
    watching = watch(first, second)
    assert not watching.sees_another()
    watching.close()


def test_a_thread_that_gets_its_name_late_is_not_missed(threads: Threads) -> None:
    watching = watch()
    assert [watching.sees_another() for _ in range(3)] == [False] * 3
    newborn = threads.start("qemu-system-x86")
    assert not watching.sees_another()
    threads.rename(newborn, "CPU 1/TCG")
    assert watching.sees_another()
    watching.close()


def test_names_are_read_again_only_of_threads_that_are_new(
    threads: Threads, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[str] = []

    def is_vcpu_thread(folder: Path) -> bool:
        looked_at.append(folder.name)
        return False

    monkeypatch.setattr("virtbalance.hypervisor.vcpu_watch.is_vcpu_thread", is_vcpu_thread)
    watching = watch()
    for _ in range(4):
        watching.sees_another()
    looked_at.clear()
    worker = threads.start("worker")
    for _ in range(4):
        watching.sees_another()
    assert looked_at == [str(worker)] * 2
    watching.close()


def test_a_process_that_has_ended() -> None:
    process = subprocess.Popen(["sleep", "60"])
    watching = VcpuWatch(process.pid, [process.pid], PROC)
    process.kill()
    process.wait()
    with pytest.raises((FileNotFoundError, ProcessLookupError)):
        watching.sees_another()
    watching.close()
