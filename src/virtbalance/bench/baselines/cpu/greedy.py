"""``greedy``: between the hottest and the coolest pCPU the best push, pull or swap, repeated.

A push takes one vCPU from the hottest to the coolest, a swap exchanges one for one. A pull is the
same push, asked for by the coolest. It goes on until the gap between hottest and coolest no longer
falls by 2 %.
"""

import itertools
from collections.abc import Iterator
from typing import Any

from virtbalance.bench.baselines.cpu.placement import (
    Placement,
    current,
    loads,
    place_new,
    plan,
    uses,
)
from virtbalance.model.cpu_estimate import CpuEstimate
from virtbalance.model.guest import VcpuKey
from virtbalance.model.plan import CpuPlan

Exchange = tuple[VcpuKey, VcpuKey | None]
"""What goes from the hottest to the coolest, and what comes back."""

_FALL_RATIO = 0.02


class Greedy:
    """Improves step by step what is there."""

    name = "greedy"

    def decide(
        self, state: None, estimate: CpuEstimate, config: Any, now_s: float
    ) -> tuple[CpuPlan, None]:
        """Repeat the best exchange while it narrows the gap."""
        del config, now_s
        placement = current(estimate)
        place_new(estimate, placement)
        while _improve(estimate, placement):
            pass
        return plan(estimate, placement, self.name), state


def _improve(estimate: CpuEstimate, placement: Placement) -> bool:
    """Make the best exchange if it narrows the gap enough; return whether it did."""
    load, used = loads(estimate, placement), uses(estimate)
    hot = max(load, key=lambda cpu: (load[cpu], -cpu))
    cool = min(load, key=lambda cpu: (load[cpu], cpu))
    gap = load[hot] - load[cool]

    def gap_after(exchange: Exchange) -> float:
        given, taken = exchange
        return abs(gap - 2 * (used[given] - (used[taken] if taken else 0.0)))

    best = min(_exchanges(placement, hot, cool), key=gap_after, default=None)
    if best is None or gap_after(best) >= (1 - _FALL_RATIO) * gap:
        return False
    given, taken = best
    placement[given] = cool
    if taken:
        placement[taken] = hot
    return True


def _exchanges(placement: Placement, hot: int, cool: int) -> Iterator[Exchange]:
    """Yield pushes, then swaps."""
    on_hot = sorted(key for key, cpu in placement.items() if cpu == hot)
    on_cool = sorted(key for key, cpu in placement.items() if cpu == cool)
    yield from ((key, None) for key in on_hot)
    yield from itertools.product(on_hot, on_cool)
