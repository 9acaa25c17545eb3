"""Handing ticks to those who only look, so that a slow or broken one can't delay the loop."""

import queue
import threading
from typing import Protocol

from virtbalance.model.tick import Event, Tick


class TextOutput(Protocol):
    """Where an observer writes text."""

    def write(self, text: str, /) -> object:
        """Take some text."""

    def flush(self) -> None:
        """Pass on what was taken."""


class Observer(Protocol):
    """Somebody who looks at what happens. Whatever it raises is counted and said, nothing more."""

    def tick(self, tick: Tick) -> None:
        """See one finished tick."""

    def notice(self, event: Event) -> None:
        """See something that happened outside a tick: a lost connection, a restored guest."""


class Audience(Protocol):
    """How the loop hands things to an observer."""

    def put(self, item: Tick | Event) -> None:
        """Hand an item over."""

    def troubles(self) -> tuple[Event, ...]:
        """Return what went wrong since the last call, as events to be counted."""


class AttachedObserver:
    """Shows an observer everything at once, in the loop's own thread: for simulated time only."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def put(self, item: Tick | Event) -> None:
        """Show an item; what the observer raises ends the run."""
        _show(self._observer, item)

    def troubles(self) -> tuple[Event, ...]:
        """Return nothing: trouble would have ended the run."""
        return ()


class DetachedObserver:
    """Runs an observer in a thread of its own behind a bounded queue."""

    def __init__(self, observer: Observer, *, capacity: int = 1000) -> None:
        self._observer = observer
        self._queue: queue.Queue[Tick | Event | None] = queue.Queue(capacity)
        self._lock = threading.Lock()
        self._lost = 0
        self._failure: str | None = None
        self._thread = threading.Thread(target=self._work, name="observer", daemon=True)
        self._thread.start()

    def put(self, item: Tick | Event) -> None:
        """Hand an item over without waiting; when the queue is full it is lost and counted."""
        try:
            self._queue.put_nowait(item)
        except queue.Full:
            with self._lock:
                self._lost += 1

    def troubles(self) -> tuple[Event, ...]:
        """Return what went wrong since the last call, as events to be counted."""
        with self._lock:
            lost, self._lost = self._lost, 0
            failure, self._failure = self._failure, None
        name = type(self._observer).__name__
        events = []
        if lost:
            text = f"{name} is too slow: {lost} records lost"
            events.append(Event("observer-slow", text, figures={"lost": lost}))
        if failure:
            events.append(Event("observer-failed", f"{name}: {failure}"))
        return tuple(events)

    def finish(self, within_s: float) -> bool:
        """Let it see what is queued; return whether it was done in time."""
        try:
            self._queue.put(None, timeout=within_s)
        except queue.Full:
            return False
        self._thread.join(within_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            try:
                _show(self._observer, item)
            except Exception as error:
                with self._lock:
                    self._failure = f"{type(error).__name__}: {error}"


def _show(observer: Observer, item: Tick | Event) -> None:
    if isinstance(item, Tick):
        observer.tick(item)
    else:
        observer.notice(item)
