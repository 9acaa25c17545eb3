"""What each vCPU wants and what each pCPU can give, from counters.

Over a window, with run = CPU time got, wait = time in the run queue, idle = 1 - run - wait, all as
shares of the time: demand = run / (run + idle). A vCPU that needs 0.50 of a pCPU and sits beside
one hog shows run 0.33, wait 0.33, idle 0.33, so 0.33 / 0.66 = 0.50; beside three hogs run 0.20,
wait 0.60, idle 0.20: 0.50 again (cpu.md, section 2). Usage alone would say 0.33 and 0.20.

That is true of closed loops. Requests that arrive whether or not the former are done run the same
beside a hog, and the formula reads too high. Between the two lies

    demand = run + theta x (run / (run + idle) - run)

with theta learnt for each vCPU (see ``elasticity``). One that is never idle has a backlog: all of
the formula holds.

The kernel credits waiting only when the thread next runs, so a window is always the difference of
two readings a second or so apart, never a mean of small samples. One of 144 on a pCPU runs 7 ms a
second: that is no observation of what it wants, and is not remembered as one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import NamedTuple

from virtbalance.cpu.capacity import OtherWork, measure_other_work
from virtbalance.cpu.elasticity import Elasticity
from virtbalance.cpu.history import Level, extend, fits
from virtbalance.cpu.memory_node import memory_node
from virtbalance.cpu.settings import DemandSettings
from virtbalance.model.cpu_estimate import CpuEstimate, VcpuEstimate
from virtbalance.model.guest import USUAL_SHARES, GuestState, RoleName, VcpuKey
from virtbalance.model.hold import Hold
from virtbalance.model.snapshot import GuestSample, Snapshot, VcpuSample
from virtbalance.model.topology import Topology

PSEUDO_S = 0.02
"""Weight of the former demand as seconds of observation: a wholly starved vCPU keeps it, where
the formula would say 0/0."""
BACKLOG_IDLE_RATIO = 0.03
"""A vCPU that is less idle than this has work waiting, whatever its kind."""


@dataclass(frozen=True, slots=True)
class Track:
    """What is remembered of one vCPU."""

    incarnation: str
    readings: tuple[VcpuSample, ...]
    """The window, oldest first."""
    slot: VcpuSample
    """The reading with which the current slot began."""
    demand: float = 0.0
    level: Level = field(default_factory=Level)
    elasticity: Elasticity = field(default_factory=Elasticity)
    starved: bool = False
    """Whether it was in the last slot: some of its waiting is credited only in the next."""


@dataclass(frozen=True, slots=True)
class DemandState:
    """What the estimator remembers between two samples."""

    tracks: Mapping[VcpuKey, Track] = field(default_factory=dict)
    other: OtherWork = field(default_factory=OtherWork)
    slot_ns: int = 0
    """When the current slot of all vCPUs began."""


def estimate(
    state: DemandState | None,
    snapshot: Snapshot,
    holds: Mapping[str, Hold],
    settings: DemandSettings,
) -> tuple[CpuEstimate, DemandState]:
    """Return what every vCPU wants and every pCPU can give; called at every sample."""
    state = state or DemandState(slot_ns=snapshot.taken_ns)
    closes = snapshot.taken_ns - state.slot_ns >= 0.9e9 * settings.slot_s
    tracks: dict[VcpuKey, Track] = {}
    vcpus: list[VcpuEstimate] = []
    for sample in snapshot.guests:
        if sample.state is GuestState.STOPPED:
            continue
        guest = _known(sample, snapshot, holds)
        for reading in sample.vcpus:
            key = VcpuKey(sample.uuid, reading.index)
            track = _follow(state.tracks.get(key), guest, reading, settings)
            if closes and sample.state is GuestState.RUNNING:
                track = _close_slot(track, guest, settings)
            tracks[key] = track
            vcpus.append(_describe(key, track, guest, snapshot.topology, settings))
    other = measure_other_work(state.other, snapshot, settings)
    return (
        CpuEstimate(
            window_s=settings.window_s,
            topology=snapshot.topology,
            capacity=other.capacity(snapshot.topology),
            vcpus=tuple(sorted(vcpus, key=attrgetter("key"))),
        ),
        DemandState(tracks, other, snapshot.taken_ns if closes else state.slot_ns),
    )


class _Guest(NamedTuple):
    """What holds for all vCPUs of a guest at this sample."""

    sample: GuestSample
    allowed: frozenset[int]
    """Usable CPUs of its cpuset; may be empty."""
    weight: float
    limit: float
    """What its quota leaves a vCPU, in pCPUs."""
    memory_node: int | None
    closed: str | None
    """Why none of its vCPUs must be moved, whatever they are like."""
    held: str | None
    """The same, where a vCPU's own reason is told first."""


class _Shares(NamedTuple):
    """What a vCPU did between two readings."""

    run: float
    wait: float | None
    """Both as shares of the time."""
    span_s: float

    @property
    def vague(self) -> bool:
        """Whether the formula tells more of its past than of itself."""
        return (self.wait or 0.0) > self.run and self.run * self.span_s < PSEUDO_S

    @property
    def starved(self) -> bool:
        """Whether it is vague for want of a pCPU: it waited for longer than it rested."""
        wait = self.wait or 0.0
        return self.vague and wait > 1 - self.run - wait


def _known(sample: GuestSample, snapshot: Snapshot, holds: Mapping[str, Hold]) -> _Guest:
    definition, topology = sample.definition, snapshot.topology
    allowed = topology.usable
    if definition.cpuset is not None:
        allowed &= definition.cpuset
    closed = held = None
    if sample.state is GuestState.PAUSED:
        closed = "paused"
    elif RoleName.CPU in sample.settings.exclude:
        closed = "excluded by its settings"
    hold = holds.get(sample.uuid)
    if not allowed:
        held = "its cpuset has no usable CPU"
    elif hold is not None and snapshot.taken_ns < hold.until_s * 1e9:
        held = hold.text
    return _Guest(
        sample,
        allowed,
        _weight(sample),
        1.0 if definition.quota_ratio is None else min(1.0, definition.quota_ratio),
        memory_node(sample, topology),
        closed,
        held,
    )


def _weight(guest: GuestSample) -> float:
    """Return what the kernel shares by, or would if nobody has said: the owner's word to us."""
    shares = guest.definition.cpu_shares
    return guest.settings.weight if shares is None else shares / USUAL_SHARES


def _follow(
    track: Track | None, guest: _Guest, reading: VcpuSample, settings: DemandSettings
) -> Track:
    """Add a reading to the window, or begin anew where the counters do not continue."""
    incarnation, state = guest.sample.incarnation, guest.sample.state
    if track is None or track.incarnation != incarnation or _restarted(track, reading):
        return Track(incarnation, (reading,), reading)
    gap = reading.read_ns - track.readings[-1].read_ns > settings.gap_ns
    if gap or state is GuestState.PAUSED:
        elasticity = track.elasticity.changed()
        return Track(incarnation, (reading,), reading, track.demand, elasticity=elasticity)
    readings = (*track.readings, reading)
    window_ns = 0.98e9 * settings.window_s
    while len(readings) > 2 and reading.read_ns - readings[1].read_ns >= window_ns:
        readings = readings[1:]
    demand = _demand(_shares(readings[0], reading), track, track.demand, guest.limit)
    return Track(
        incarnation,
        readings,
        track.slot,
        demand,
        track.level,
        track.elasticity,
        track.starved,
    )


def _restarted(track: Track, reading: VcpuSample) -> bool:
    last = track.readings[-1]
    lost_wait = (reading.wait_ns is None) != (last.wait_ns is None)
    return reading.run_ns < last.run_ns or (reading.wait_ns or 0) < (last.wait_ns or 0) or lost_wait


def _close_slot(track: Track, guest: _Guest, settings: DemandSettings) -> Track:
    """Remember the demand over the slot that ends with the newest reading, if it was seen."""
    last = track.readings[-1]
    if last.read_ns <= track.slot.read_ns:
        return track
    former = track.level.demands[-1] if track.level.demands else track.demand
    shares = _shares(track.slot, last)
    if shares.starved or track.starved:
        return _not_seen(track, shares)
    demand = _demand(shares, track, former, guest.limit)
    level = extend(track.level, demand, track.slot.read_ns, settings.history_slots)
    elasticity = track.elasticity
    if level.since_ns != track.level.since_ns:
        elasticity = elasticity.changed()
    if shares.wait is not None:
        elasticity = elasticity.seen(shares.run, shares.wait)
    return Track(track.incarnation, track.readings, last, track.demand, level, elasticity)


def _not_seen(track: Track, shares: _Shares) -> Track:
    """Close a slot that tells nothing, but perhaps that a level has ended.

    Starved, it waits for longer than it rests, so it wants more than twice what it gets.
    """
    track = replace(track, slot=track.readings[-1], starved=shares.starved)
    if shares.starved and track.level.mean < 2 * shares.run:
        ended = Level(jitter=track.level.jitter)
        return replace(track, level=ended, elasticity=track.elasticity.changed())
    return track


def _shares(first: VcpuSample, last: VcpuSample) -> _Shares:
    span_ns = last.read_ns - first.read_ns
    if span_ns <= 0:
        return _Shares(0.0, None if last.wait_ns is None else 0.0, 0.0)
    run = min(1.0, (last.run_ns - first.run_ns) / span_ns)
    if last.wait_ns is None or first.wait_ns is None:
        return _Shares(run, None, span_ns / 1e9)
    return _Shares(run, (last.wait_ns - first.wait_ns) / span_ns, span_ns / 1e9)


def _demand(shares: _Shares, track: Track, former: float, limit: float) -> float:
    run, wait, span_s = shares
    if span_s <= 0:
        return former
    if wait is None:
        return min(run, limit)
    idle = max(0.0, 1 - run - wait)
    pseudo = PSEUDO_S / span_s
    demand = (run + pseudo * former) / (run + idle + pseudo)
    if idle >= BACKLOG_IDLE_RATIO:
        demand = run + track.elasticity.theta * (demand - run)
    return min(demand, limit)


def _describe(
    key: VcpuKey, track: Track, guest: _Guest, topology: Topology, settings: DemandSettings
) -> VcpuEstimate:
    first, last = track.readings[0], track.readings[-1]
    shares = _shares(first, last)
    affinity = last.affinity or topology.usable
    demands = track.level.demands
    steady_s = (last.read_ns - track.level.since_ns) / 1e9 if demands else 0.0
    near_full = max(track.demand, track.level.mean) >= settings.saturated_ratio
    lasted = steady_s >= (settings.transient_s if near_full else settings.settle_s)
    return VcpuEstimate(
        key=key,
        guest_name=guest.sample.name,
        run_ratio=shares.run,
        wait_ratio=shares.wait,
        demand_ratio=0.0 if guest.sample.state is GuestState.PAUSED else track.demand,
        allowed=guest.allowed or affinity,
        affinity=affinity,
        weight=guest.weight,
        fixed=_why_fixed(guest, last, shares.span_s, settings),
        history=demands,
        steady_s=steady_s,
        settled=lasted and not (track.starved or shares.vague) and fits(track.level, track.demand),
        starved=track.starved,
        memory_node=guest.memory_node,
    )


def _why_fixed(
    guest: _Guest, reading: VcpuSample, seen_s: float, settings: DemandSettings
) -> str | None:
    """Return why this vCPU must not be moved, or ``None``; the first reason that holds."""
    if guest.closed is not None:
        return guest.closed
    if reading.index in guest.sample.definition.pinned_vcpus:
        return "pinned by its persistent definition"
    if reading.realtime:
        return "runs under a realtime class"
    if reading.affinity is None:
        return "its affinity can't be read"
    if guest.held is None and seen_s < 0.9 * settings.window_s:
        return "new: not seen for long enough"
    return guest.held
