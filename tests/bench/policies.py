"""Policies that misbehave, each in its own way; loaded by tests as ``policies.py:NAME``."""

import os
import sys
import time
from pathlib import Path
from typing import Any

from virtbalance.model.guest import VcpuKey
from virtbalance.model.plan import CpuPlan, DesiredSize, MemoryPlan, Pin, Reason

WHY = Reason("test", "because")


class Raises:
    name = "raises"

    def decide(self, state: Any, estimate: Any, config: Any, now_s: float) -> Any:
        raise RuntimeError("I do not know")


class Exits:
    name = "exits"

    def decide(self, state: Any, estimate: Any, config: Any, now_s: float) -> Any:
        sys.stdout.write("I am off\n")
        sys.exit(3)


class WrongType:
    name = "wrong-type"

    def decide(self, state: Any, estimate: Any, config: Any, now_s: float) -> Any:
        return "yes"


class Nonsense:
    name = "nonsense"

    def decide(self, state: Any, estimate: Any, config: Any, now_s: float) -> Any:
        key = estimate.vcpus[0].key
        pins = (
            Pin(VcpuKey("nobody", 0), frozenset({0}), WHY),
            Pin(VcpuKey(key.uuid, 99), frozenset({0}), WHY),
            Pin(key, frozenset(), WHY),
            Pin(key, frozenset({999}), WHY),
        )
        return CpuPlan(pins), state


class NegativeMemory:
    name = "negative-memory"

    def decide(self, state: Any, estimate: Any, config: Any, now_s: float) -> Any:
        sizes = (
            DesiredSize(estimate.guests[0].uuid, -5, WHY),
            DesiredSize("nobody", 1024, WHY),
        )
        return MemoryPlan(sizes), state


class Sleeps:
    name = "sleeps"

    def decide(self, state: Any, estimate: Any, config: Any, now_s: float) -> Any:
        while True:
            time.sleep(0.1)


class SlowToLeave:
    """Never answers; leaves a file where ``LEFT`` says once it was asked to end, a second later."""

    name = "slow-to-leave"

    def decide(self, state: Any, estimate: Any, config: Any, now_s: float) -> Any:
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            time.sleep(1)
            Path(os.environ["LEFT"]).touch()
            raise


class First:
    """Pins every vCPU to the first pCPU: harmful, but in order."""

    name = "first"

    def decide(self, state: Any, estimate: Any, config: Any, now_s: float) -> Any:
        target = frozenset({min(estimate.capacity)})
        pins = tuple(Pin(v.key, target, WHY) for v in estimate.vcpus if v.affinity != target)
        return CpuPlan(pins), state
