"""What a guest may claim: four sizes, each containing the one before (memory.md, section 4).

- *floor* (T0): its configured minimum;
- *hard* (T1): what it uses, what it will use before it can be helped again, and head-room; less
  hurts at once;
- *soft* (T2): the same for its recent peak, with room to breathe;
- *cache* (T3): what it has filled, page cache included, and some; a bonus where there is plenty.
"""

from typing import NamedTuple

from virtbalance.memory.settings import NeedSettings


class Situation(NamedTuple):
    """What the claims of one guest follow from."""

    actual_kib: int
    minimum_kib: int
    maximum_kib: int
    used_kib: int
    cached_kib: int
    """Page cache that it could give up."""
    slope_kib_s: float
    peak_kib: int
    pressure: bool
    interval_s: float
    """Time from tick to tick."""
    unseen_s: float
    """How old the guest's report can be at the next tick."""

    @property
    def usable_kib(self) -> int:
        """What it has and does not use, by the size it has now."""
        return self.actual_kib - self.used_kib


class Needs(NamedTuple):
    """The claims, all between minimum and maximum."""

    lead_kib: int
    hard_kib: int
    soft_kib: int
    cache_kib: int
    hidden: bool
    """More is needed than can be seen."""


def needs(situation: Situation, settings: NeedSettings) -> Needs:
    """Return what the guest may claim."""
    s = situation
    lead = lead_kib(s, settings)
    hard = s.used_kib + lead + max(settings.headroom_kib, settings.headroom_ratio * s.used_kib)
    hidden = _hidden(s, settings)
    if hidden:
        hard = max(hard, settings.escalation_ratio * s.actual_kib + lead)
    peak = s.peak_kib + lead
    unseen = settings.unseen_spare_kib + settings.unseen_kib_s * s.unseen_s
    soft = peak + max(settings.comfort_kib, settings.comfort_ratio * peak, unseen)
    if hidden:
        soft = max(soft, settings.soft_escalation_ratio * s.actual_kib + lead)
    room = max(settings.cache_room_kib, settings.cache_room_ratio * s.actual_kib)
    hard_kib = _within(s, s.minimum_kib, hard)
    soft_kib = _within(s, hard_kib, soft)
    cache_kib = _within(s, soft_kib, s.used_kib + s.cached_kib + room)
    return Needs(round(lead), hard_kib, soft_kib, cache_kib, hidden)


def lead_kib(situation: Situation, settings: NeedSettings) -> float:
    """Return the growth to expect before the guest can be helped again."""
    lead_s = max(settings.lead_s, 2 * situation.interval_s)
    return min(situation.slope_kib_s * lead_s, settings.lead_ratio * situation.maximum_kib)


def _hidden(s: Situation, settings: NeedSettings) -> bool:
    """Return whether its size hides what it would use: nothing usable, and more is wanted."""
    tight = s.usable_kib < settings.tight_ratio * s.actual_kib
    return tight and (s.pressure or s.slope_kib_s > 0)


def _within(s: Situation, lowest_kib: int, wanted_kib: float) -> int:
    return min(max(lowest_kib, round(wanted_kib)), s.maximum_kib)
