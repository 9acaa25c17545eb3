"""One question to many guests at once."""

import threading
import time
from collections.abc import Callable

import libvirt
import pytest

from tests.hypervisor.fakes import FakeLibvirtError
from virtbalance.hypervisor.calls import Callers
from virtbalance.hypervisor.gather import Round
from virtbalance.model.errors import HypervisorLostError

pytestmark = pytest.mark.libvirt


def raising(code: int, origin: int = libvirt.VIR_FROM_QEMU) -> Callable[[], str]:
    def question() -> str:
        raise FakeLibvirtError(code, origin)

    return question


def test_answers_are_sorted_by_what_became_of_them() -> None:
    questions = {
        "well": lambda: "fine",
        "gone": raising(libvirt.VIR_ERR_NO_DOMAIN),
        "off": raising(libvirt.VIR_ERR_OPERATION_INVALID),
        "occupied": raising(libvirt.VIR_ERR_OPERATION_TIMEOUT),
        "odd": raising(libvirt.VIR_ERR_INTERNAL_ERROR),
    }
    answers = Round(Callers("test", 4), questions).finish(time.monotonic() + 5)
    assert answers.fresh == {"well": "fine"}
    assert answers.gone == {"gone", "off"}
    assert answers.late == {"occupied"}
    assert answers.failed == {"odd": f"error {libvirt.VIR_ERR_INTERNAL_ERROR}"}


def test_a_lost_connection_is_raised() -> None:
    questions = {"a": raising(libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_FROM_RPC)}
    with pytest.raises(HypervisorLostError):
        Round(Callers("test", 4), questions).finish(time.monotonic() + 5)


def test_who_hangs_is_late_at_the_deadline_and_then_at_once() -> None:
    callers, release = Callers("test", 2), threading.Event()

    def hang() -> str:
        release.wait(20)
        return "old news"

    questions: dict[str, Callable[[], str]] = {str(number): lambda: "fine" for number in range(20)}
    questions["hung"] = hang
    answers = Round(callers, questions).finish(time.monotonic() + 0.3)
    assert answers.late == {"hung"}
    assert len(answers.fresh) == 20
    began_s = time.monotonic()
    answers = Round(callers, questions).finish(time.monotonic() + 5)
    assert time.monotonic() - began_s < 1.0, "nobody waits for it again"
    assert answers.late == {"hung"}
    release.set()
    end_s = time.monotonic() + 5
    while callers.is_stuck("hung"):
        assert time.monotonic() < end_s
        time.sleep(0.01)
    assert Round(callers, questions).finish(end_s).fresh["hung"] == "old news"


def test_more_hanging_guests_than_threads_leave_no_mark_on_the_rest() -> None:
    callers, release = Callers("test", 4), threading.Event()
    hung: dict[str, Callable[[], object]] = {f"h{n}": lambda: release.wait(20) for n in range(30)}
    for _ in range(9):
        Round(callers, hung).finish(time.monotonic() + 0.02)
    well: dict[str, Callable[[], object]] = {f"w{n}": lambda: "fine" for n in range(20)}
    answers = Round(callers, hung | well).finish(time.monotonic() + 5)
    assert len(answers.fresh) == 20
    release.set()
