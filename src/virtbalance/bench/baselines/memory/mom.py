"""``mom``: oVirt's memory overcommitment manager with its default rules.

It samples every 5 s and acts every 10 s on averages of the last 10 samples. With hf the free part
of the host's memory and used = balloon - unused:

    hf < 0.20   every guest keeps gf = hf of its balloon free (hf - 0.05 where hf <= 0.05):
                new = max(0.95 balloon, used + gf balloon), only downwards
    otherwise   guests below their maximum get min(maximum, max(1.05 balloon, used + 0.20 balloon))

Changes of 0.25 % or less are dropped. On KVM its minimum is 0.
"""

from dataclasses import dataclass
from statistics import fmean
from typing import Any

from virtbalance.bench.baselines.memory.sizes import due, plan
from virtbalance.model.memory_estimate import GuestMemoryEstimate, MemoryEstimate
from virtbalance.model.plan import MemoryPlan

_SAMPLE_S = 5.0
_ACT_S = 10.0
_SAMPLES = 10
_PRESSURE_RATIO = 0.20
_HARD_PRESSURE_RATIO = 0.05
_STEP_RATIO = 0.05
_DROP_RATIO = 0.0025


@dataclass(frozen=True, slots=True)
class MomState:
    """Samples of the host's free part and of each guest's balloon and unused memory."""

    sample_at_s: float
    act_at_s: float
    host: tuple[float, ...] = ()
    guests: tuple[tuple[str, tuple[tuple[int, int], ...]], ...] = ()


class Mom:
    """Shrinks everybody while the host is short, grows everybody while it is not."""

    name = "mom"

    def decide(
        self, state: MomState | None, estimate: MemoryEstimate, config: Any, now_s: float
    ) -> tuple[MemoryPlan, MomState]:
        """Sample, and act when it is time."""
        del config
        state = state or MomState(now_s, now_s)
        if due(now_s, state.sample_at_s):
            state = _sampled(state, estimate, now_s)
        if not due(now_s, state.act_at_s):
            return MemoryPlan(), state
        free_ratio, samples = fmean(state.host), dict(state.guests)
        sizes = {
            guest.uuid: _size(guest, samples[guest.uuid], free_ratio)
            for guest in estimate.guests
            if guest.uuid in samples
        }
        state = MomState(state.sample_at_s, now_s + _ACT_S, state.host, state.guests)
        return plan(estimate, sizes, self.name), state


def _sampled(state: MomState, estimate: MemoryEstimate, now_s: float) -> MomState:
    host = (*state.host, estimate.host.available_kib / estimate.host.total_kib)
    known = dict(state.guests)
    guests = tuple(
        (g.uuid, (*known.get(g.uuid, ()), (g.actual_kib, g.unused_kib))[-_SAMPLES:])
        for g in estimate.guests
    )
    return MomState(now_s + _SAMPLE_S, state.act_at_s, host[-_SAMPLES:], guests)


def _size(
    guest: GuestMemoryEstimate, samples: tuple[tuple[int, int], ...], free_ratio: float
) -> int:
    balloon_kib = fmean(balloon for balloon, _ in samples)
    used_kib = balloon_kib - fmean(unused for _, unused in samples)
    if free_ratio < _PRESSURE_RATIO:
        hard = free_ratio <= _HARD_PRESSURE_RATIO
        keep_ratio = free_ratio - _HARD_PRESSURE_RATIO if hard else free_ratio
        wanted_kib = max((1 - _STEP_RATIO) * balloon_kib, used_kib + keep_ratio * balloon_kib)
        size_kib = min(wanted_kib, guest.actual_kib)
    else:
        grown_kib = max((1 + _STEP_RATIO) * balloon_kib, used_kib + _PRESSURE_RATIO * balloon_kib)
        size_kib = min(guest.maximum_kib, grown_kib)
    if abs(size_kib - guest.actual_kib) <= _DROP_RATIO * guest.actual_kib:
        return guest.target_kib
    return int(size_kib)
