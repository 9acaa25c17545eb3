"""From a snapshot to what each guest needs and what the host can give (memory.md, 1 to 5).

The order of one look at one guest, each step a file of its own:

    report (new? sensible?) -> used (race-free) -> trend (growth, peak) -> claims (four sizes)
    motion (stuck?) -> class (fixed, new, managed)

and then the budget, which the guests that can be resized share.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from virtbalance.memory import budget, classes, trend
from virtbalance.memory.claims import Needs, Situation, needs
from virtbalance.memory.compartments import compartment_estimates, watch_compartments
from virtbalance.memory.motion import Motion, watch
from virtbalance.memory.reports import Hearing, Report, listen
from virtbalance.memory.settings import DemandSettings, NeedSettings, TrustSettings
from virtbalance.memory.trend import Trend, Use
from virtbalance.memory.used import Accounting, Sizes, learn, used_kib
from virtbalance.model.guest import GuestState
from virtbalance.model.hold import Hold
from virtbalance.model.memory_estimate import GuestMemoryEstimate, MemoryEstimate
from virtbalance.model.reservation import Reservation
from virtbalance.model.snapshot import GuestSample, HostMemory, MemorySample, Snapshot

_UNREADABLE = "the host's memory could not be read"


class Track(NamedTuple):
    """What is remembered of one guest."""

    incarnation: str
    since_s: float
    settling_s: float
    sample: MemorySample
    hearing: Hearing = Hearing()
    accounting: Accounting = Accounting()
    trend: Trend = Trend()
    motion: Motion = Motion()
    used_kib: int | None = None
    """By its latest believable report."""
    overhead_kib: int = 0
    swapped: bool = False
    """It has been seen to use swap."""


@dataclass(frozen=True, slots=True)
class DemandState:
    """What the estimator remembers between ticks."""

    taken_s: float
    passed_s: float
    """From the look before to the latest."""
    tracks: Mapping[str, Track]
    other: budget.OtherUse = field(default_factory=budget.OtherUse)
    others: Mapping[str, budget.OtherUse] = field(default_factory=dict)
    """The same for compartments, by name."""


@dataclass(frozen=True, slots=True)
class _Look:
    """What is the same for all guests of one tick."""

    now_s: float
    passed_s: float
    """Since the look before."""
    interval_s: float
    """From look to look; one that came late does not make it longer."""
    settling_s: float
    settings: DemandSettings


def estimate(
    state: DemandState | None,
    snapshot: Snapshot,
    targets: Mapping[str, int],
    holds: Mapping[str, Hold],
    settings: DemandSettings,
    reservations: Sequence[Reservation] = (),
) -> tuple[MemoryEstimate, DemandState]:
    """Return what the snapshot means, and the state for the next one.

    ``targets``: what we asked for last, in KiB by guest UUID, outside changes accepted.
    ``reservations``: oldest first.
    """
    now_s = snapshot.taken_ns / 1e9
    look = _look(state, now_s, settings)
    known = state.tracks if state else {}
    tracks: dict[str, Track] = {}
    guests: list[GuestMemoryEstimate] = []
    for guest in snapshot.guests:
        track = _track(known.get(guest.uuid), guest, targets, look)
        if track is not None:
            tracks[guest.uuid] = track
            guests.append(_guest(track, guest, targets, holds.get(guest.uuid), look))
    if snapshot.memory is None:
        unread = tuple(guest._replace(fixed=guest.fixed or _UNREADABLE) for guest in guests)
        other = state.other if state else budget.OtherUse()
        blind = MemoryEstimate(
            HostMemory(0, 0),
            budget_kib=0,
            reserve_kib=0,
            other_kib=0,
            guests=unread,
            interval_s=look.interval_s,
            reserved_kib=sum(reservation.size_kib for reservation in reservations),
        )
        return blind, DemandState(now_s, look.passed_s, tracks, other)
    samples = [track.sample for track in tracks.values()]
    other = budget.watch_other(
        state.other if state else budget.OtherUse(),
        snapshot.memory,
        samples,
        now_s,
        settings.budget,
    )
    others = watch_compartments(
        state.others if state else {},
        snapshot.compartments,
        {uuid: track.sample for uuid, track in tracks.items()},
        now_s,
        settings.budget,
    )
    own_kib = {uuid: _overhead_kib(track, settings) for uuid, track in tracks.items()}
    overheads_kib = sum(own_kib.values())
    whole = _whole(snapshot.memory, guests, tracks, other, overheads_kib, reservations, look)
    takes = {guest.uuid: guest.charge_kib + own_kib[guest.uuid] for guest in guests}
    inside = compartment_estimates(snapshot.compartments, others, takes, settings.budget)
    after = DemandState(now_s, look.passed_s, tracks, other, others)
    return replace(whole, compartments=inside), after


def _look(state: DemandState | None, now_s: float, settings: DemandSettings) -> _Look:
    """Return what is the same for all; guests that were there before us are spared no time."""
    if state is None:
        return _Look(now_s, 0.0, 0.0, 0.0, settings)
    passed_s = now_s - state.taken_s
    interval_s = min(passed_s, state.passed_s or passed_s)
    return _Look(now_s, passed_s, interval_s, settings.trust.new_s, settings)


def _track(
    track: Track | None, guest: GuestSample, targets: Mapping[str, int], look: _Look
) -> Track | None:
    """Take one sample of a guest in; ``None`` if nothing is or was known of its memory."""
    if track is not None and track.incarnation != guest.incarnation:
        track = None
    sample = guest.memory or (track.sample if track else None)
    if sample is None or guest.state is GuestState.STOPPED:
        return None
    trust = look.settings.trust
    tolerance_kib = _tolerance_kib(sample, trust)
    target_kib = targets.get(guest.uuid, sample.actual_kib)
    sizes = Sizes(
        sample.actual_kib,
        track.sample.actual_kib if track else None,
        sample.maximum_kib,
        arrived=abs(sample.actual_kib - target_kib) <= tolerance_kib,
    )
    if track is None:
        track = Track(guest.incarnation, look.now_s, look.settling_s, sample)
    hearing = listen(track.hearing, sample, look.now_s)
    accounting, used, followed = track.accounting, track.used_kib, track.trend
    if hearing.last is not None and hearing.last is not track.hearing.last:
        accounting, used, followed = _heard(track, hearing.last, sizes, look)
    moving = track.motion
    if guest.state is not GuestState.RUNNING:
        moving = moving.halted()
    elif not sample.late:
        moving = watch(moving, sample.actual_kib, target_kib, look.now_s, trust, tolerance_kib)
    return Track(
        incarnation=track.incarnation,
        since_s=track.since_s,
        settling_s=track.settling_s,
        sample=sample,
        hearing=hearing,
        accounting=accounting,
        trend=followed,
        motion=moving,
        used_kib=used,
        overhead_kib=budget.overhead_kib(track.overhead_kib, sample, at_rest=sizes.at_rest),
        swapped=track.swapped or (bool(sample.swap_out_kib) and not sample.late),
    )


def _heard(
    track: Track, report: Report, sizes: Sizes, look: _Look
) -> tuple[Accounting, int, Trend]:
    """Return what a new report means: how it counts, the use by it, and where that is going."""
    known = track.accounting
    if sizes.maximum_kib != track.sample.maximum_kib:
        # Memory was added or taken out: its total means something else now.
        known = Accounting()
    accounting = learn(known, report, sizes, look.settings.trust.mode_change_kib)
    used = used_kib(accounting, report, sizes, track.used_kib)
    use = Use(report.heard_s, used)
    return accounting, used, trend.follow(track.trend, use, sizes.maximum_kib, look.settings.need)


def _guest(
    track: Track,
    guest: GuestSample,
    targets: Mapping[str, int],
    hold: Hold | None,
    look: _Look,
) -> GuestMemoryEstimate:
    """Return what is believed of one guest now."""
    sample, trust = track.sample, look.settings.trust
    maximum_kib = min(sample.maximum_kib, guest.settings.maximum_kib or sample.maximum_kib)
    minimum_kib = min(_minimum_kib(guest, maximum_kib, look.settings.need), maximum_kib)
    target_kib = targets.get(guest.uuid, sample.actual_kib)
    committed_kib = max(sample.actual_kib, target_kib)
    standing = classes.Standing(
        guest=guest,
        hearing=track.hearing,
        since_s=track.since_s,
        settling_s=track.settling_s,
        interval_s=look.interval_s,
        late=sample.late,
        stuck=track.motion.stuck,
        hold=hold,
    )
    fixed = classes.fixed(standing, look.now_s, trust)
    report = track.hearing.last
    if report is None:
        told = _unheard(sample.actual_kib, committed_kib)
    else:
        told = _told(track, report, minimum_kib, maximum_kib, guest, look)
    return GuestMemoryEstimate(
        uuid=guest.uuid,
        guest_name=guest.name,
        maximum_kib=maximum_kib,
        minimum_kib=minimum_kib,
        actual_kib=sample.actual_kib,
        target_kib=target_kib,
        used_kib=told.used_kib,
        usable_kib=told.usable_kib,
        unused_kib=told.unused_kib,
        slope_kib_s=told.slope_kib_s,
        peak_kib=told.peak_kib,
        pressure=told.pressure,
        hard_kib=told.needs.hard_kib,
        soft_kib=told.needs.soft_kib,
        cache_kib=told.needs.cache_kib,
        weight=guest.settings.weight,
        swaps=track.swapped if guest.settings.swap is None else guest.settings.swap,
        rss_kib=sample.rss_kib,
        fixed=fixed,
        growable_only=None if fixed else classes.growable_only(standing, look.now_s, trust),
        lead_kib=told.needs.lead_kib,
        hidden=told.needs.hidden,
        swap_in_kib_s=told.swap_in_kib_s,
        load_ended=track.trend.ended,
        stuck=fixed == classes.STUCK,
        charge_kib=_charge_kib(guest, sample, committed_kib, look) if fixed else 0,
        idle_kib=_idle_kib(track, fixed, look),
    )


def _charge_kib(guest: GuestSample, sample: MemorySample, committed_kib: int, look: _Look) -> int:
    taken = guest.definition.unswappable is not None
    return budget.charge_kib(sample, committed_kib, look.settings.budget, taken=taken)


def _idle_kib(track: Track, fixed: str | None, look: _Look) -> int:
    """Return what of a stuck guest may be lent, also while its balloon is tried again."""
    tried = fixed is None and track.motion.failures > 0
    if track.used_kib is None or not (tried or fixed == classes.STUCK):
        return 0
    return budget.idle_kib(track.sample, track.used_kib, look.settings.budget)


class _Told(NamedTuple):
    """What a guest's own reports add to what the host sees of it."""

    used_kib: int
    usable_kib: int
    unused_kib: int
    slope_kib_s: float
    peak_kib: int
    pressure: bool
    swap_in_kib_s: float
    needs: Needs


def _unheard(actual_kib: int, committed_kib: int) -> _Told:
    """Return what is assumed of a guest that has not said anything yet: it needs what it has."""
    needs_it = Needs(0, committed_kib, committed_kib, committed_kib, hidden=False)
    return _Told(
        actual_kib, 0, 0, 0.0, actual_kib, pressure=False, swap_in_kib_s=0.0, needs=needs_it
    )


def _told(
    track: Track,
    report: Report,
    minimum_kib: int,
    maximum_kib: int,
    guest: GuestSample,
    look: _Look,
) -> _Told:
    assert track.used_kib is not None, "a report always gives the used memory"
    need, before = look.settings.need, track.hearing.before
    actual_kib = track.sample.actual_kib
    situation = Situation(
        actual_kib=actual_kib,
        minimum_kib=minimum_kib,
        maximum_kib=maximum_kib,
        used_kib=min(track.used_kib, actual_kib),
        cached_kib=max(0, report.usable_kib - report.unused_kib),
        slope_kib_s=trend.slope_kib_s(track.trend),
        peak_kib=round(track.trend.peak_kib),
        pressure=trend.under_pressure(report, before, need),
        interval_s=look.interval_s,
        unseen_s=look.interval_s + guest.definition.stats_period_s,
    )
    return _Told(
        used_kib=situation.used_kib,
        usable_kib=min(report.usable_kib, situation.usable_kib),
        unused_kib=report.unused_kib,
        slope_kib_s=situation.slope_kib_s,
        peak_kib=situation.peak_kib,
        pressure=situation.pressure,
        swap_in_kib_s=trend.swap_in_kib_s(report, before),
        needs=needs(situation, need),
    )


def _whole(
    host: HostMemory,
    guests: list[GuestMemoryEstimate],
    tracks: Mapping[str, Track],
    other: budget.OtherUse,
    overheads_kib: int,
    reservations: Sequence[Reservation],
    look: _Look,
) -> MemoryEstimate:
    settings = look.settings.budget
    charges = sum(guest.charge_kib for guest in guests)
    other_kib = round(other.peak_kib)
    budget_kib = budget.budget_kib(host, other_kib, overheads_kib, charges, settings)
    budget_kib += _lent_kib(guests, tracks)
    resizable = {guest.uuid: guest.committed_kib for guest in guests if not guest.fixed}
    fixed = {guest.uuid: guest.charge_kib for guest in guests if guest.fixed}
    reserved_kib = budget.reserved_kib(reservations, resizable | fixed)
    free_kib = budget_kib - sum(resizable.values())
    room_kib = settings.reserved_room_kib * len(resizable) if reserved_kib else 0
    withheld_kib = reserved_kib + room_kib
    return MemoryEstimate(
        host=host,
        budget_kib=budget_kib - withheld_kib,
        reserve_kib=budget.reserve_kib(host.total_kib, settings),
        other_kib=other_kib,
        guests=tuple(guests),
        pool_kib=round(settings.pool_ratio * host.total_kib),
        interval_s=look.interval_s,
        reserved_kib=reserved_kib,
        reserved_free_kib=min(max(0, free_kib), reserved_kib),
        withheld_kib=withheld_kib,
    )


def _lent_kib(guests: Sequence[GuestMemoryEstimate], tracks: Mapping[str, Track]) -> int:
    """Return what is lent of idle memory: no more than guests with swap could return.

    One whose balloon did not follow when last asked is not counted on.
    """
    idle_kib = sum(guest.idle_kib for guest in guests)
    if not idle_kib:
        return 0
    followers = (g for g in guests if not (g.fixed or tracks[g.uuid].motion.failures))
    debtors = (g for g in followers if g.swaps)
    return min(idle_kib, sum(max(0, g.committed_kib - g.minimum_kib) for g in debtors))


def _overhead_kib(track: Track, settings: DemandSettings) -> int:
    return max(track.overhead_kib, settings.budget.overhead_kib)


def _minimum_kib(guest: GuestSample, maximum_kib: int, need: NeedSettings) -> int:
    if guest.settings.minimum_kib is not None:
        return guest.settings.minimum_kib
    return max(need.minimum_kib, round(need.minimum_ratio * maximum_kib))


def _tolerance_kib(sample: MemorySample, trust: TrustSettings) -> int:
    return max(trust.tolerance_kib, round(trust.tolerance_ratio * sample.maximum_kib))
