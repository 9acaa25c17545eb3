"""Blocking calls in daemon threads: with a deadline, and at most one under way for each key.

A libvirt call may block for as long as a hung QEMU or libvirtd likes and can't be interrupted.
So every call is made by a daemon thread (it can't hold up the end of the program), whoever wants
the answer waits only as long as it can, and a key (a guest, mostly) whose last call has not
answered gets no second one. A caller that has given up a call says so; the thread that hangs in
it is then replaced, so hung guests never use up the threads.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

T = TypeVar("T")


def call_within(timeout_s: float, function: Callable[[], T]) -> T:
    """Make one call and wait for its end. TimeoutError if it takes longer; it goes on then."""
    callers = Callers("call", 1)
    call = callers.submit("call", function)
    assert call is not None
    callers.close()
    if not call.wait(timeout_s):
        raise TimeoutError
    return call.result()


class Latch:
    """Lets all who wait pass once it was counted down. A future a call would cost more."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._shut = threading.Lock()
        if count:
            self._shut.acquire()

    def count_down(self) -> None:
        """Count one; by one thread at a time."""
        self._count -= 1
        if self._count == 0:
            self._shut.release()

    def wait(self, timeout_s: float) -> bool:
        """Return whether it opened in time."""
        if not self._shut.acquire(timeout=max(0.0, timeout_s)):
            return False
        self._shut.release()
        return True


@dataclass(slots=True, eq=False)
class Call(Generic[T]):
    """A call under way. ``took_ns`` is its own time without the time in the queue."""

    key: str
    function: Callable[[], T]
    latch: Latch
    """Counted down at the end of this call and of those handed over together with it."""
    claimed: bool = False
    """A thread makes it, or it was taken back: nobody else begins it."""
    answer: tuple[T] | None = None
    failure: BaseException | None = None
    took_ns: int = 0

    @property
    def done(self) -> bool:
        """Whether it has come to its end."""
        return self.answer is not None or self.failure is not None

    def wait(self, timeout_s: float) -> bool:
        """Wait for the end of all that were handed over with it; False if it is not in time."""
        return self.latch.wait(timeout_s)

    def result(self) -> T:
        """Return what a call answered that is done, or raise what it raised."""
        if self.failure is not None:
            raise self.failure
        assert self.answer is not None, "it is done"
        return self.answer[0]


class Callers:
    """A pool of daemon threads that grows with the calls under way, up to ``threads``."""

    def __init__(self, name: str, threads: int) -> None:
        self._name = name
        self._threads_wanted = threads
        self._threads = 0
        self._lock = threading.Lock()
        self._queue: SimpleQueue[Call[Any] | None] = SimpleQueue()
        self._under_way: dict[str, Call[Any]] = {}
        self._given_up: set[str] = set()

    def submit(self, key: str, function: Callable[[], T]) -> Call[T] | None:
        """Let a thread call ``function``; ``None`` if an earlier call for this key still runs."""
        return self.submit_all({key: function}).get(key)

    def submit_all(self, functions: Mapping[str, Callable[[], T]]) -> dict[str, Call[T]]:
        """Let threads make one call a key; keys whose earlier call still runs are left out."""
        with self._lock:
            free = functions.keys() - self._under_way.keys()
            latch = Latch(len(free))
            calls = {
                key: Call(key, function, latch)
                for key, function in functions.items()
                if key in free
            }
            self._under_way.update(calls)
            while self._threads < min(len(self._under_way), self._limit()):
                self._threads += 1
                threading.Thread(target=self._work, name=self._name, daemon=True).start()
        for call in calls.values():
            self._queue.put(call)
        return calls

    def give_up(self, call: Call[Any]) -> bool:
        """Stop waiting for a call. True if it had not begun and now never will."""
        with self._lock:
            if call.claimed:
                if not call.done:
                    self._given_up.add(call.key)
                return False
            call.claimed = True
            del self._under_way[call.key]
            call.latch.count_down()
        return True

    def is_stuck(self, key: str) -> bool:
        """Whether a call for this key was given up and has still not answered."""
        return key in self._given_up

    @property
    def stuck(self) -> int:
        """How many calls were given up and have still not answered."""
        return len(self._given_up)

    def close(self) -> None:
        """Let idle threads end. Those that hang end when their call does, or with the program."""
        with self._lock:
            threads, self._threads_wanted = self._threads, 0
        for _ in range(threads):
            self._queue.put(None)

    def _limit(self) -> int:
        return self._threads_wanted + len(self._given_up)

    def _work(self) -> None:
        while (call := self._queue.get()) is not None:
            self._make(call)
            with self._lock:
                if self._threads > self._limit():
                    self._threads -= 1
                    return

    def _make(self, call: Call[Any]) -> None:
        with self._lock:
            if call.claimed:
                return
            call.claimed = True
        answer: tuple[Any] | None = None
        failure: BaseException | None = None
        began_ns = time.monotonic_ns()
        try:
            answer = (call.function(),)
        except BaseException as error:  # handed to whoever waits for the answer
            failure = error
        took_ns = time.monotonic_ns() - began_ns
        with self._lock:
            call.took_ns, call.answer, call.failure = took_ns, answer, failure
            del self._under_way[call.key]
            self._given_up.discard(call.key)
            call.latch.count_down()
