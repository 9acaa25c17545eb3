"""One question to many guests at once, in threads, with a deadline and a barrier.

A guest that does not answer in time is late and not awaited; while its call hangs it gets no
second one and is late at once. A late answer is thrown away: the next sample asks again.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import libvirt

from virtbalance.hypervisor.calls import Call, Callers
from virtbalance.hypervisor.errors import Fault, exception_of, fault_of, text_of

T = TypeVar("T")


@dataclass(slots=True)
class Answers(Generic[T]):
    """What came back, by guest UUID."""

    fresh: dict[str, T] = field(default_factory=dict)
    late: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    """What libvirt said where it refused to answer."""


class Round(Generic[T]):
    """One round of questions under way."""

    def __init__(self, callers: Callers, questions: Mapping[str, Callable[[], T]]) -> None:
        self._callers = callers
        self._calls = callers.submit_all(questions)
        self._answers: Answers[T] = Answers(late=set(questions.keys() - self._calls.keys()))

    def finish(self, end_s: float) -> Answers[T]:
        """Wait until all have answered or the monotonic time is ``end_s``.

        HypervisorLostError when an answer says that the connection is gone.
        """
        if (any_of_them := next(iter(self._calls.values()), None)) is not None:
            any_of_them.wait(end_s - time.monotonic())
        for uuid, call in self._calls.items():
            if call.done:
                self._sort(uuid, call)
            else:
                self._callers.give_up(call)
                self._answers.late.add(uuid)
        return self._answers

    def _sort(self, uuid: str, call: Call[T]) -> None:
        try:
            self._answers.fresh[uuid] = call.result()
        except libvirt.libvirtError as error:
            match fault_of(error):
                case Fault.GONE:
                    self._answers.gone.add(uuid)
                case Fault.LOST:
                    raise exception_of(error, "asking for statistics") from error
                case Fault.OCCUPIED:
                    self._answers.late.add(uuid)
                case _:
                    self._answers.failed[uuid] = text_of(error)
