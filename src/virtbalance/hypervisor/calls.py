"""Blocking calls in daemon threads: with a deadline, and at most one under way for each key.

A libvirt call may block for as long as a hung QEMU or libvirtd likes and can't be interrupted.
So every call is made by a daemon thread (it can't hold up the end of the program), whoever wants
the answer waits only as long as it can, and a key (a guest, mostly) whose last call has not
answered gets no second one. A caller that has given up a call says so; the thread that hangs in
it is then replaced, so hung guests never use up the threads.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

T = TypeVar("T")


def call_within(timeout_s: float, function: Callable[[], T]) -> T:
    """Make one call and wait for its end. TimeoutError if it takes longer; it goes on then."""
    callers = Callers("call", 1)
    call = callers.submit("call", function)
    assert call is not None
    callers.close()
    return call.future.result(timeout_s)


@dataclass(slots=True, eq=False)
class Call(Generic[T]):
    """A call under way. ``took_ns`` is its own time without the time in the queue."""

    key: str
    function: Callable[[], T]
    future: Future[T] = field(default_factory=Future)
    took_ns: int = 0


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
        with self._lock:
            if key in self._under_way:
                return None
            call = Call(key, function)
            self._under_way[key] = call
            if self._threads < min(len(self._under_way), self._limit()):
                self._threads += 1
                threading.Thread(target=self._work, name=self._name, daemon=True).start()
        self._queue.put(call)
        return call

    def give_up(self, call: Call[Any]) -> bool:
        """Stop waiting for a call. True if it had not begun and now never will."""
        cancelled = call.future.cancel()
        with self._lock:
            if cancelled:
                self._under_way.pop(call.key, None)
            elif call.key in self._under_way:
                self._given_up.add(call.key)
        return cancelled

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
        if not call.future.set_running_or_notify_cancel():
            return
        began_ns = time.monotonic_ns()
        try:
            answer = call.function()
        except BaseException as error:  # handed to whoever waits for the answer
            failure: BaseException | None = error
        else:
            failure = None
        call.took_ns = time.monotonic_ns() - began_ns
        with self._lock:
            self._under_way.pop(call.key, None)
            self._given_up.discard(call.key)
        if failure is None:
            call.future.set_result(answer)
        else:
            call.future.set_exception(failure)
