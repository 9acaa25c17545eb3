"""From a snapshot to what each guest needs and what the host can give (memory.md, 1 to 5).

The order of one look at one guest, each step a file of its own:

    report (new? sensible?) -> used (race-free) -> trend (growth, peak) -> claims (four sizes)
    motion (stuck?) -> class (fixed, new, managed)

and then the budget, which the guests that can be resized share.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from virtbalance.memory import budget, classes, trend
from virtbalance.memory.claims import Needs, Situation, needs
from virtbalance.memory.motion import Motion, watch
from virtbalance.memory.reports import Hearing, Report, listen
from virtbalance.memory.settings import DemandSettings, NeedSettings, TrustSettings
from virtbalance.memory.trend import Trend, Use
from virtbalance.memory.used import Accounting, learn, used_kib
from virtbalance.model.guest import GuestState
from virtbalance.model.hold import Hold
from virtbalance.model.memory_estimate import GuestMemoryEstimate, MemoryEstimate
from virtbalance.model.snapshot import GuestSample, HostMemory, MemorySample, Snapshot

_STILL_KIB = 1024
"""A balloon that moved less than this from one look to the next stands still."""
_UNREADABLE = "the host's memory could not be read"


@dataclass(frozen=True, slots=True)
class Track:
    """What is remembered of one guest."""

    incarnation: str
    since_s: float
    settling_s: float
    sample: MemorySample
    hearing: Hearing = field(default_factory=Hearing)
    accounting: Accounting = field(default_factory=Accounting)
    trend: Trend = field(default_factory=Trend)
    motion: Motion = field(default_factory=Motion)
    used_kib: int | None = None
    """By its latest believable report."""
    overhead_kib: int = 0
    swapped: bool = False
    """It has been seen to use swap."""


@dataclass(frozen=True, slots=True)
class DemandState:
    """What the estimator remembers between ticks."""

    taken_s: float
    tracks: Mapping[str, Track]
    other: budget.OtherUse = field(default_factory=budget.OtherUse)


@dataclass(frozen=True, slots=True)
class _Look:
    """What is the same for all guests of one tick."""

    now_s: float
    interval_s: float
    settling_s: float
    settings: DemandSettings


def estimate(
    state: DemandState | None,
    snapshot: Snapshot,
    targets: Mapping[str, int],
    holds: Mapping[str, Hold],
    settings: DemandSettings,
) -> tuple[MemoryEstimate, DemandState]:
    """Return what the snapshot means, and the state for the next one.

    ``targets``: what we asked for last, in KiB by guest UUID, outside changes accepted.
    """
    now_s = snapshot.taken_ns / 1e9
    look = _Look(
        now_s,
        now_s - state.taken_s if state else 0.0,
        settings.trust.new_s if state else 0.0,
        settings,
    )
    known = state.tracks if state else {}
    tracks: dict[str, Track] = {}
    guests: list[GuestMemoryEstimate] = []
    for guest in snapshot.guests:
        track = _track(known.get(guest.uuid), guest, targets, look)
        if track is not None:
            tracks[guest.uuid] = track
            guests.append(_guest(track, guest, targets, holds.get(guest.uuid), look))
    if snapshot.memory is None:
        unread = tuple(replace(guest, fixed=guest.fixed or _UNREADABLE) for guest in guests)
        other = state.other if state else budget.OtherUse()
        blind = MemoryEstimate(HostMemory(0, 0), 0, 0, 0, unread, interval_s=look.interval_s)
        return blind, DemandState(now_s, tracks, other)
    samples = [track.sample for track in tracks.values()]
    other = budget.watch_other(
        state.other if state else budget.OtherUse(),
        snapshot.memory,
        samples,
        now_s,
        settings.budget,
    )
    whole = _whole(snapshot.memory, guests, tracks, other, look)
    return whole, DemandState(now_s, tracks, other)


def _track(
    track: Track | None, guest: GuestSample, targets: Mapping[str, int], look: _Look
) -> Track | None:
    """Take one sample of a guest in; ``None`` if nothing is or was known of its memory."""
    if track is not None and track.incarnation != guest.incarnation:
        track = None
    sample = guest.memory or (track.sample if track else None)
    if sample is None or guest.state is GuestState.STOPPED:
        return None
    if track is None:
        track = Track(guest.incarnation, look.now_s, look.settling_s, sample)
    trust = look.settings.trust
    tolerance_kib = _tolerance_kib(sample, trust)
    target_kib = targets.get(guest.uuid, sample.actual_kib)
    at_rest = (
        abs(sample.actual_kib - target_kib) <= tolerance_kib
        and abs(sample.actual_kib - track.sample.actual_kib) <= _STILL_KIB
    )
    hearing = listen(track.hearing, sample, look.now_s)
    if hearing.last is not None and hearing.last is not track.hearing.last:
        track = _heard(track, hearing.last, sample, look, at_rest=at_rest)
    moving = track.motion
    if guest.state is not GuestState.RUNNING:
        moving = Motion(stuck_until_s=moving.stuck_until_s, failures=moving.failures)
    elif not sample.late:
        moving = watch(moving, sample.actual_kib, target_kib, look.now_s, trust, tolerance_kib)
    return replace(
        track,
        sample=sample,
        hearing=hearing,
        motion=moving,
        overhead_kib=budget.overhead_kib(track.overhead_kib, sample, at_rest=at_rest),
        swapped=track.swapped or bool(sample.swap_out_kib),
    )


def _heard(
    track: Track, report: Report, sample: MemorySample, look: _Look, *, at_rest: bool
) -> Track:
    """Take in a new report."""
    accounting, known_kib, past = track.accounting, track.used_kib, track.trend
    if sample.maximum_kib != track.sample.maximum_kib:
        # Memory was added or taken out: its total means something else now.
        accounting = Accounting()
    accounting = learn(
        accounting,
        report,
        sample.actual_kib,
        sample.maximum_kib,
        at_rest=at_rest,
        change_kib=look.settings.trust.mode_change_kib,
    )
    now_used_kib = used_kib(
        accounting,
        report,
        max(sample.actual_kib, track.sample.actual_kib),
        sample.maximum_kib,
        at_rest=at_rest,
        previous_kib=known_kib,
    )
    use = Use(report.heard_s, now_used_kib)
    followed = trend.follow(past, use, sample.maximum_kib, look.settings.need)
    return replace(track, accounting=accounting, used_kib=now_used_kib, trend=followed)


def _guest(
    track: Track,
    guest: GuestSample,
    targets: Mapping[str, int],
    hold: Hold | None,
    look: _Look,
) -> GuestMemoryEstimate:
    """Return what is believed of one guest now."""
    sample, need, trust = track.sample, look.settings.need, look.settings.trust
    maximum_kib = min(sample.maximum_kib, guest.settings.maximum_kib or sample.maximum_kib)
    minimum_kib = min(_minimum_kib(guest, maximum_kib, need), maximum_kib)
    actual_kib = sample.actual_kib
    target_kib = targets.get(guest.uuid, actual_kib)
    standing = _standing(track, guest, hold, look)
    fixed = classes.fixed(standing, look.now_s, trust)
    known = GuestMemoryEstimate(
        uuid=guest.uuid,
        guest_name=guest.name,
        maximum_kib=maximum_kib,
        minimum_kib=minimum_kib,
        actual_kib=actual_kib,
        target_kib=target_kib,
        used_kib=actual_kib,
        usable_kib=0,
        unused_kib=0,
        slope_kib_s=0.0,
        peak_kib=actual_kib,
        pressure=False,
        hard_kib=max(actual_kib, target_kib),
        soft_kib=max(actual_kib, target_kib),
        cache_kib=max(actual_kib, target_kib),
        weight=guest.settings.weight,
        swaps=track.swapped,
        rss_kib=sample.rss_kib,
        fixed=fixed,
        growable_only=None if fixed else classes.growable_only(standing, look.now_s, trust),
        stuck=fixed == classes.STUCK,
    )
    if fixed is not None:
        charge = budget.charge_kib(sample, known.committed_kib, look.settings.budget)
        known = replace(known, charge_kib=charge)
    report = track.hearing.last
    if report is None:
        return known
    return _told(known, track, report, guest.definition.stats_period_s, look)


def _told(
    known: GuestMemoryEstimate, track: Track, report: Report, stats_period_s: int, look: _Look
) -> GuestMemoryEstimate:
    """Fill in what the guest's own report adds."""
    assert track.used_kib is not None, "a report always gives the used memory"
    need = look.settings.need
    used = min(track.used_kib, known.actual_kib)
    pressure = trend.under_pressure(report, track.hearing.before, need)
    slope = trend.slope_kib_s(track.trend)
    claims = needs(
        Situation(
            actual_kib=known.actual_kib,
            minimum_kib=known.minimum_kib,
            maximum_kib=known.maximum_kib,
            used_kib=used,
            filled_kib=used + max(0, report.usable_kib - report.unused_kib),
            usable_kib=known.actual_kib - used,
            slope_kib_s=slope,
            peak_kib=round(track.trend.peak_kib),
            pressure=pressure,
            interval_s=look.interval_s,
            unseen_s=look.interval_s + stats_period_s,
        ),
        need,
    )
    return _with_claims(
        replace(
            known,
            used_kib=used,
            usable_kib=min(report.usable_kib, known.actual_kib - used),
            unused_kib=report.unused_kib,
            slope_kib_s=slope,
            peak_kib=round(track.trend.peak_kib),
            pressure=pressure,
            swap_in_kib_s=trend.swap_in_kib_s(report, track.hearing.before),
            load_ended=track.trend.ended,
        ),
        claims,
    )


def _with_claims(guest: GuestMemoryEstimate, claims: Needs) -> GuestMemoryEstimate:
    return replace(
        guest,
        lead_kib=claims.lead_kib,
        hard_kib=claims.hard_kib,
        soft_kib=claims.soft_kib,
        cache_kib=claims.cache_kib,
        hidden=claims.hidden,
    )


def _standing(track: Track, guest: GuestSample, hold: Hold | None, look: _Look) -> classes.Standing:
    held = hold if hold and hold.until_s > look.now_s else None
    return classes.Standing(
        state=guest.state,
        settings=guest.settings,
        definition=guest.definition,
        hearing=track.hearing,
        since_s=track.since_s,
        settling_s=track.settling_s,
        interval_s=look.interval_s,
        stuck=track.motion.stuck,
        released=held.text if held and math.isinf(held.until_s) else None,
        held=held.text if held else None,
    )


def _whole(
    host: HostMemory,
    guests: list[GuestMemoryEstimate],
    tracks: Mapping[str, Track],
    other: budget.OtherUse,
    look: _Look,
) -> MemoryEstimate:
    settings = look.settings.budget
    overheads = sum(max(track.overhead_kib, settings.overhead_kib) for track in tracks.values())
    charges = sum(guest.charge_kib for guest in guests)
    other_kib = round(other.peak_kib)
    return MemoryEstimate(
        host=host,
        budget_kib=budget.budget_kib(host, other_kib, overheads, charges, settings),
        reserve_kib=budget.reserve_kib(host.total_kib, settings),
        other_kib=other_kib,
        guests=tuple(guests),
        pool_kib=round(settings.pool_ratio * host.total_kib),
        interval_s=look.interval_s,
    )


def _minimum_kib(guest: GuestSample, maximum_kib: int, need: NeedSettings) -> int:
    if guest.settings.minimum_kib is not None:
        return guest.settings.minimum_kib
    return max(need.minimum_kib, round(need.minimum_ratio * maximum_kib))


def _tolerance_kib(sample: MemorySample, trust: TrustSettings) -> int:
    return max(trust.tolerance_kib, round(trust.tolerance_ratio * sample.maximum_kib))
