"""Observers look; they delay nothing and break nothing."""

import threading
import time

from virtbalance.control.observers import DetachedObserver
from virtbalance.model.tick import Event, Tick

SOMETHING = Event("something", "happened")


class Recorder:
    def __init__(self) -> None:
        self.seen: list[Tick | Event] = []
        self.gate = threading.Event()
        self.gate.set()

    def tick(self, tick: Tick) -> None:
        self.seen.append(tick)

    def notice(self, event: Event) -> None:
        self.gate.wait()
        if event.kind == "break":
            raise RuntimeError("out of paper")
        self.seen.append(event)


def test_everything_is_seen_in_order_by_the_end() -> None:
    recorder = Recorder()
    observer = DetachedObserver(recorder)
    events = [Event("n", str(number)) for number in range(50)]
    for event in events:
        observer.put(event)
    assert observer.finish(within_s=5.0)
    assert recorder.seen == events


def test_a_broken_observer_is_counted_and_goes_on() -> None:
    recorder = Recorder()
    observer = DetachedObserver(recorder)
    observer.put(Event("break", ""))
    observer.put(SOMETHING)
    assert observer.finish(within_s=5.0)
    assert recorder.seen == [SOMETHING]
    assert [(t.kind, t.text) for t in observer.troubles()] == [
        ("observer-failed", "Recorder: RuntimeError: out of paper")
    ]
    assert observer.troubles() == ()


def test_a_slow_observer_loses_records_but_delays_nobody() -> None:
    recorder = Recorder()
    recorder.gate.clear()
    observer = DetachedObserver(recorder, capacity=2)
    observer.put(SOMETHING)
    while observer._queue.qsize():  # until its thread has taken the first and waits at the gate
        time.sleep(0.001)
    for _ in range(5):
        observer.put(SOMETHING)
    assert [event.figures for event in observer.troubles()] == [{"lost": 3}]
    assert not observer.finish(within_s=0.01)
    recorder.gate.set()
