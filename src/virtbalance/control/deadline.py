"""A limit on how long a policy may think.

Only the main thread of a process can be interrupted in the middle of Python code, by an interval
timer's signal. So decisions are made there: a loop that runs in the main thread calls directly,
one that runs in another thread hands its decision over and waits.
"""

import queue
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future
from types import FrameType
from typing import Any, Protocol, TypeVar

Result = TypeVar("Result")

_REPEAT_S = 0.05


class OverrunError(Exception):
    """The decision took longer than allowed and was broken off."""


class _Interruption(BaseException):
    """Raised inside the policy; not an ``Exception``, so that a policy does not catch it."""


class Decider(Protocol):
    """Runs a decision, with or without a limit."""

    def call(self, decision: Callable[[], Result], limit_s: float) -> Result:
        """Return the decision's result; raise ``OverrunError`` or what the decision raises."""


class UnlimitedDecider:
    """No limit: for deterministic runs."""

    def call(self, decision: Callable[[], Result], limit_s: float) -> Result:  # noqa: ARG002 - the protocol's signature
        """Return the decision's result."""
        return decision()


class MainThreadDecider:
    """Runs decisions in the main thread under an interval timer.

    ``serve`` must run in the main thread while other threads ``call``.
    """

    def __init__(self) -> None:
        self._requests: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    def call(self, decision: Callable[[], Result], limit_s: float) -> Result:
        """Return the decision's result; raise ``OverrunError`` or what the decision raises."""
        if threading.current_thread() is threading.main_thread():
            return _interruptible(decision, limit_s)
        future: Future[Result] = Future()

        def request() -> None:
            try:
                future.set_result(_interruptible(decision, limit_s))
            except (Exception, SystemExit) as error:
                future.set_exception(error)

        self._requests.put(request)
        return future.result()

    def serve(self) -> None:
        """Run decisions for other threads until ``finish`` is called."""
        while (request := self._requests.get()) is not None:
            request()

    def finish(self) -> None:
        """Let ``serve`` return; callable from any thread and from a signal handler."""
        self._requests.put(None)


def _interruptible(decision: Callable[[], Result], limit_s: float) -> Result:
    def interrupt(signum: int, frame: FrameType | None) -> Any:  # noqa: ARG001 - the signal module's signature
        raise _Interruption

    former = signal.signal(signal.SIGALRM, interrupt)
    try:
        try:
            # It repeats, so a policy that catches everything is interrupted again.
            signal.setitimer(signal.ITIMER_REAL, limit_s, _REPEAT_S)
            return decision()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
    except _Interruption:
        raise OverrunError(f"no answer within {limit_s:.3g} s") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, former)
