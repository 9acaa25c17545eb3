"""Which guests may be resized: managed, fixed or new, each with the reason (memory.md, section 2).

- *fixed*: never resized; what it has is charged to the budget.
- *new*: may grow but not shrink, because too little is known of it yet; so may a guest that is
  held, answers late, or whose last report is not quite fresh.
- *managed*: all others.
"""

from math import isinf
from typing import NamedTuple

from virtbalance.memory.reports import Hearing
from virtbalance.memory.settings import TrustSettings
from virtbalance.model.guest import GuestState, RoleName
from virtbalance.model.hold import Hold
from virtbalance.model.snapshot import GuestSample

STUCK = "its balloon driver does not follow"


class Standing(NamedTuple):
    """What is known of a guest that decides its class."""

    guest: GuestSample
    hearing: Hearing
    since_s: float
    """When it was first seen."""
    settling_s: float
    """How long it is spared from then on."""
    interval_s: float
    late: bool
    """It did not answer in time just now."""
    stuck: bool
    hold: Hold | None
    """Why it is left alone, for a while or for good."""


def fixed(standing: Standing, now_s: float, settings: TrustSettings) -> str | None:
    """Return why the guest must not be resized; ``None``: it may."""
    guest, hold = standing.guest, standing.hold
    if RoleName.MEMORY in guest.settings.exclude:
        return "excluded by its owner"
    if not guest.definition.balloon:
        return "it has no balloon device"
    if guest.definition.unswappable:
        return f"its memory can't be given back: {guest.definition.unswappable}"
    if guest.state is not GuestState.RUNNING or guest.has_job:
        return f"it is {'being migrated, dumped or saved' if guest.has_job else guest.state}"
    if hold and isinf(hold.until_s):
        return hold.text
    return _unheard(standing, now_s, settings) or (STUCK if standing.stuck else None)


def growable_only(standing: Standing, now_s: float, settings: TrustSettings) -> str | None:
    """Return why the guest must not be shrunk; ``None``: it may. Only for guests not fixed."""
    if standing.hold and standing.hold.until_s > now_s:
        return standing.hold.text
    if now_s - standing.since_s < standing.settling_s:
        return f"it started less than {standing.settling_s:g} s ago"
    if standing.hearing.reports < settings.new_reports:
        return f"it has reported {standing.hearing.reports} of {settings.new_reports} times"
    if standing.late:
        return "it does not answer in time"
    age_s = _age_s(standing, now_s)
    if age_s > settings.fresh_periods * _period_s(standing):
        return f"its statistics are {age_s:.0f} s old"
    return None


def _unheard(standing: Standing, now_s: float, settings: TrustSettings) -> str | None:
    """Return what is wrong with its statistics."""
    hearing = standing.hearing
    if hearing.heard_s is None:
        silent_s = now_s - standing.since_s
        return "no balloon driver reports" if silent_s >= settings.silent_s else None
    age_s = _age_s(standing, now_s)
    if age_s < max(settings.stale_s, settings.stale_periods * _period_s(standing)):
        return None
    return hearing.nonsense or f"its statistics are {age_s:.0f} s old"


def _age_s(standing: Standing, now_s: float) -> float:
    """Return how long ago it said something believable."""
    last = standing.hearing.last
    return now_s - (last.heard_s if last else standing.since_s)


def _period_s(standing: Standing) -> float:
    """Return how often something new can be heard of it."""
    return max(standing.guest.definition.stats_period_s, standing.interval_s)
