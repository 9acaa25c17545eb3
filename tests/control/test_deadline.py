"""A policy that thinks too long is broken off, whatever it does about it."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from virtbalance.control.deadline import MainThreadDecider, OverrunError


def spin() -> int:
    while True:
        pass


def spin_and_catch_everything() -> int:
    while True:
        try:
            while True:
                pass
        except Exception:
            continue


def swallow_interruptions() -> int:
    for _ in range(3):
        try:
            while True:
                pass
        except BaseException:
            continue
    raise ValueError("interrupted three times")


def test_a_quick_decision_is_returned() -> None:
    assert MainThreadDecider().call(lambda: 5, limit_s=1.0) == 5


@pytest.mark.parametrize("policy", [spin, spin_and_catch_everything])
def test_an_endless_decision_is_broken_off(policy: object) -> None:
    assert callable(policy)
    with pytest.raises(OverrunError, match=r"no answer within 0\.05 s"):
        MainThreadDecider().call(policy, limit_s=0.05)


def test_a_decision_that_swallows_the_interruption_is_interrupted_again() -> None:
    with pytest.raises(ValueError, match="three times"):
        MainThreadDecider().call(swallow_interruptions, limit_s=0.02)


def test_another_thread_hands_its_decision_to_the_main_thread() -> None:
    decider = MainThreadDecider()
    with ThreadPoolExecutor(1) as pool:
        where = pool.submit(lambda: decider.call(threading.current_thread, limit_s=1.0))
        where.add_done_callback(lambda _: decider.finish())
        decider.serve()
        assert where.result() is threading.main_thread()


def test_errors_and_overruns_come_back_to_the_thread_that_asked() -> None:
    decider = MainThreadDecider()

    def ask() -> list[str]:
        kinds = []
        for decision in (spin, lambda: 1 // 0, lambda: sys.exit(3)):
            try:
                decider.call(decision, limit_s=0.05)
            except (Exception, SystemExit) as error:
                kinds.append(type(error).__name__)
        return kinds

    with ThreadPoolExecutor(1) as pool:
        kinds = pool.submit(ask)
        kinds.add_done_callback(lambda _: decider.finish())
        decider.serve()
        assert kinds.result() == ["OverrunError", "ZeroDivisionError", "SystemExit"]
