"""What a loop did on a host, simulated or real, before it is measured."""

from collections.abc import Callable
from dataclasses import dataclass

from virtbalance.bench.contenders import Thinking
from virtbalance.bench.recording import Recording

Progress = Callable[[float], object]
"""Called with the time reached."""


@dataclass(frozen=True, slots=True)
class Played:
    """One run, before it is measured."""

    recording: Recording
    thinking: Thinking
    first_failure: str | None
