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
two readings a second or so apart, never a mean of small samples.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from virtbalance.cpu.capacity import OtherWork, measure_other_work
from virtbalance.cpu.elasticity import Elasticity
from virtbalance.cpu.history import Level, extend, fits, mean
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
GAP_SAMPLES = 3
"""A reading this many samples late means a suspend or a stall: its window is not believed."""


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
    for guest, sample in _present(snapshot):
        key = VcpuKey(guest.uuid, sample.index)
        track = _follow(state.tracks.get(key), guest, sample, settings)
        if closes and guest.state is GuestState.RUNNING:
            track = _close_slot(track, guest, settings)
        tracks[key] = track
        fixed = _why_fixed(guest, sample, track, holds, snapshot, settings)
        vcpus.append(_describe(guest, sample, track, fixed, snapshot.topology, settings))
    other = measure_other_work(state.other, snapshot, settings)
    return (
        CpuEstimate(
            window_s=settings.window_s,
            topology=snapshot.topology,
            capacity=other.capacity(snapshot.topology),
            vcpus=tuple(sorted(vcpus, key=lambda vcpu: vcpu.key)),
        ),
        DemandState(tracks, other, snapshot.taken_ns if closes else state.slot_ns),
    )


def _present(snapshot: Snapshot) -> Iterator[tuple[GuestSample, VcpuSample]]:
    for guest in snapshot.guests:
        if guest.state is not GuestState.STOPPED:
            for sample in guest.vcpus:
                yield guest, sample


def _follow(
    track: Track | None, guest: GuestSample, sample: VcpuSample, settings: DemandSettings
) -> Track:
    """Add a reading to the window, or begin anew where the counters do not continue."""
    if track is None or track.incarnation != guest.incarnation or _restarted(track, sample):
        return Track(guest.incarnation, (sample,), sample)
    late_ns = GAP_SAMPLES * settings.sample_s * 1e9
    gap = sample.read_ns - track.readings[-1].read_ns > late_ns
    if gap or guest.state is GuestState.PAUSED:
        return Track(
            track.incarnation,
            (sample,),
            sample,
            track.demand,
            elasticity=track.elasticity.changed(),
        )
    readings = (*track.readings, sample)
    window_ns = 0.98e9 * settings.window_s
    while len(readings) > 2 and sample.read_ns - readings[1].read_ns >= window_ns:
        readings = readings[1:]
    demand = _demand(readings[0], sample, track, track.demand, guest)
    return replace(track, readings=readings, demand=demand)


def _restarted(track: Track, sample: VcpuSample) -> bool:
    last = track.readings[-1]
    lost_wait = (sample.wait_ns is None) != (last.wait_ns is None)
    return sample.run_ns < last.run_ns or (sample.wait_ns or 0) < (last.wait_ns or 0) or lost_wait


def _close_slot(track: Track, guest: GuestSample, settings: DemandSettings) -> Track:
    """Remember the demand over the slot that ends with the newest reading."""
    last = track.readings[-1]
    if last.read_ns <= track.slot.read_ns:
        return track
    former = track.level.demands[-1] if track.level.demands else track.demand
    demand = _demand(track.slot, last, track, former, guest)
    level = extend(track.level, demand, track.slot.read_ns, settings.history_slots)
    elasticity = track.elasticity
    if len(level.demands) == 1:
        elasticity = elasticity.changed()
    run, wait, _ = _shares(track.slot, last)
    if wait is not None:
        elasticity = elasticity.seen(run, wait)
    return replace(track, slot=last, level=level, elasticity=elasticity)


def _demand(
    first: VcpuSample, last: VcpuSample, track: Track, former: float, guest: GuestSample
) -> float:
    run, wait, span_s = _shares(first, last)
    if span_s <= 0:
        return former
    if wait is None:
        demand = run
    else:
        idle = max(0.0, 1 - run - wait)
        pseudo = PSEUDO_S / span_s
        demand = (run + pseudo * former) / (run + idle + pseudo)
        if idle >= BACKLOG_IDLE_RATIO:
            demand = run + track.elasticity.theta * (demand - run)
    quota = guest.definition.quota_ratio
    return min(demand, 1.0 if quota is None else quota, 1.0)


def _shares(first: VcpuSample, last: VcpuSample) -> tuple[float, float | None, float]:
    """Return run and wait as shares of the time between two readings, and that time."""
    span_ns = last.read_ns - first.read_ns
    if span_ns <= 0:
        return 0.0, None if last.wait_ns is None else 0.0, 0.0
    run = min(1.0, (last.run_ns - first.run_ns) / span_ns)
    if last.wait_ns is None or first.wait_ns is None:
        return run, None, span_ns / 1e9
    return run, (last.wait_ns - first.wait_ns) / span_ns, span_ns / 1e9


def _why_fixed(
    guest: GuestSample,
    sample: VcpuSample,
    track: Track,
    holds: Mapping[str, Hold],
    snapshot: Snapshot,
    settings: DemandSettings,
) -> str | None:
    """Return why this vCPU must not be moved, or ``None``; the first reason that holds."""
    hold = holds.get(guest.uuid)
    seen_ns = track.readings[-1].read_ns - track.readings[0].read_ns
    reasons = (
        (guest.state is GuestState.PAUSED, "paused"),
        (RoleName.CPU in guest.settings.exclude, "excluded by its settings"),
        (sample.index in guest.definition.pinned_vcpus, "pinned by its persistent definition"),
        (sample.realtime, "runs under a realtime class"),
        (sample.affinity is None, "its affinity can't be read"),
        (not _allowed(guest, snapshot.topology), "its cpuset has no usable CPU"),
        (hold is not None and snapshot.taken_ns < hold.until_s * 1e9, hold.text if hold else ""),
        (seen_ns < 0.9e9 * settings.window_s, "new: not seen for long enough"),
    )
    return next((text for applies, text in reasons if applies), None)


def _allowed(guest: GuestSample, topology: Topology) -> frozenset[int]:
    cpuset = guest.definition.cpuset
    return topology.usable if cpuset is None else topology.usable & cpuset


def _weight(guest: GuestSample) -> float:
    """Return what the kernel shares by, or would if nobody has said: the owner's word to us."""
    shares = guest.definition.cpu_shares
    return guest.settings.weight if shares is None else shares / USUAL_SHARES


def _describe(
    guest: GuestSample,
    sample: VcpuSample,
    track: Track,
    fixed: str | None,
    topology: Topology,
    settings: DemandSettings,
) -> VcpuEstimate:
    run, wait, span_s = _shares(track.readings[0], sample)
    # what ran for less than the pseudo observation shows more of its past than of itself
    starved = wait is not None and wait > run and run * span_s < PSEUDO_S
    affinity = sample.affinity or topology.usable
    demands = track.level.demands
    steady_s = (sample.read_ns - track.level.since_ns) / 1e9 if demands else 0.0
    near_full = max(track.demand, mean(demands or (0.0,))) >= settings.saturated_ratio
    lasted = steady_s >= (settings.transient_s if near_full else settings.settle_s)
    return VcpuEstimate(
        key=VcpuKey(guest.uuid, sample.index),
        guest_name=guest.name,
        run_ratio=run,
        wait_ratio=wait,
        demand_ratio=0.0 if guest.state is GuestState.PAUSED else track.demand,
        allowed=_allowed(guest, topology) or affinity,
        affinity=affinity,
        weight=_weight(guest),
        fixed=fixed,
        history=demands,
        steady_s=steady_s,
        settled=lasted and not starved and fits(track.level, track.demand),
        memory_node=memory_node(guest, topology),
    )
