"""Blocking calls in daemon threads."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial

import pytest

from virtbalance.hypervisor.calls import Callers, Latch


def hang_until(release: threading.Event) -> Callable[[], str]:
    def hang() -> str:
        release.wait(20)
        return "at last"

    return hang


def answer_of(callers: Callers, key: str, answer: str = "answer") -> str | None:
    call = callers.submit(key, lambda: answer)
    if call is None:
        return None
    assert call.wait(5)
    return call.result()


def test_answers_and_errors_come_back() -> None:
    callers = Callers("test", 2)
    assert answer_of(callers, "a", "x") == "x"
    call = callers.submit("a", lambda: 1 / 0)
    assert call is not None
    assert call.wait(5)
    with pytest.raises(ZeroDivisionError):
        call.result()
    assert answer_of(callers, "a") == "answer", "a failed call is over, too"


def test_one_call_a_key() -> None:
    callers, release = Callers("test", 2), threading.Event()
    call = callers.submit("a", hang_until(release))
    assert callers.submit("a", lambda: "second") is None
    assert answer_of(callers, "b") == "answer"
    release.set()
    assert call is not None
    assert call.wait(5)
    assert call.result() == "at last"
    assert answer_of(callers, "a") == "answer"


def test_time_is_taken_without_the_queue() -> None:
    callers = Callers("test", 1)
    calls = callers.submit_all({key: partial(time.sleep, 0.05) for key in "abc"})
    assert calls["a"].wait(5)
    assert all(0.04e9 < call.took_ns < 0.1e9 for call in calls.values())


def test_calls_handed_over_together_are_awaited_together() -> None:
    callers, release = Callers("test", 2), threading.Event()
    calls = callers.submit_all({"a": lambda: "answer", "b": hang_until(release)})
    assert not calls["a"].wait(0.1), "b hangs"
    assert calls["a"].done
    assert callers.submit_all({"b": lambda: "second", "c": lambda: "answer"}).keys() == {"c"}
    release.set()
    assert calls["a"].wait(5)
    assert [call.result() for call in calls.values()] == ["answer", "at last"]


def test_nothing_to_call_is_not_awaited() -> None:
    assert Latch(0).wait(0)


def test_hanging_threads_are_replaced_once_given_up() -> None:
    callers, release = Callers("test", 2), threading.Event()
    hanging = [callers.submit(str(number), hang_until(release)) for number in range(10)]
    late = callers.submit("late", lambda: "answer")
    assert late is not None
    assert not late.wait(0.1), "two threads, both hang"
    for call in hanging:
        assert call is not None
        callers.give_up(call)
    assert callers.is_stuck("0")
    assert not callers.is_stuck("9"), "it had not begun and was taken back"
    assert answer_of(callers, "next") == "answer"
    assert late.wait(5)
    assert late.result() == "answer"
    release.set()


def test_a_call_taken_back_leaves_its_key_free() -> None:
    callers, release = Callers("test", 1), threading.Event()
    callers.submit("a", hang_until(release))
    waiting = callers.submit("b", lambda: "never")
    assert waiting is not None
    assert callers.give_up(waiting)
    assert waiting.wait(0), "nobody waits for what will never be"
    release.set()
    assert answer_of(callers, "b") == "answer"


def test_threads_end_after_close() -> None:
    callers = Callers("closing", 3)
    calls = callers.submit_all({key: partial(time.sleep, 0.02) for key in "abc"})
    callers.close()
    assert calls["a"].wait(5)
    end_s = time.monotonic() + 5
    while any(thread.name == "closing" for thread in threading.enumerate()):
        assert time.monotonic() < end_s
        time.sleep(0.01)


def test_a_hanging_call_does_not_hold_up_the_end_of_the_program() -> None:
    program = (
        "import time; from virtbalance.hypervisor.calls import Callers\n"
        "Callers('x', 1).submit('a', lambda: time.sleep(60)); time.sleep(0.1)"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=20, check=False).returncode == 0
