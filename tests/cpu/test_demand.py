"""Counters become demand: cpu.md's worked example, and all that can go wrong with counters."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cpu.world import host, noisy
from virtbalance.cpu.demand import DemandState, estimate
from virtbalance.cpu.settings import DemandSettings, sample_period_s
from virtbalance.model.cpu_estimate import CpuEstimate, VcpuEstimate
from virtbalance.model.guest import GuestDefinition, GuestSettings, GuestState, RoleName
from virtbalance.model.hold import Hold
from virtbalance.model.snapshot import GuestSample, PcpuSample, Snapshot, VcpuSample
from virtbalance.model.topology import Topology, flat_topology

SETTINGS = DemandSettings(sample_s=0.25)
STEP_S = 0.25


def snapshot(
    now_s: float,
    run_s: float,
    wait_s: float | None,
    *,
    affinity: frozenset[int] | None = frozenset({0}),
    busy_s: tuple[float, ...] = (),
    topology: Topology | None = None,
    guest: GuestSample | None = None,
) -> Snapshot:
    topology = topology or flat_topology(2)
    now_ns = round(now_s * 1e9)
    wait_ns = None if wait_s is None else round(wait_s * 1e9)
    sample = VcpuSample(0, round(run_s * 1e9), wait_ns, now_ns, affinity)
    guest = guest or GuestSample("a", "web1", "1")
    return Snapshot(
        now_ns,
        now_s,
        topology,
        (replace(guest, vcpus=(sample,)),),
        tuple(PcpuSample(cpu, round(busy * 1e9)) for cpu, busy in enumerate(busy_s)),
    )


def watch(
    *,
    run: float,
    wait: float | None,
    seconds: float = 3,
    state: DemandState | None = None,
    start_s: float = 100.0,
    guest: GuestSample | None = None,
    affinity: frozenset[int] | None = frozenset({0}),
    topology: Topology | None = None,
    holds: dict[str, Hold] | None = None,
    counted_s: float = 0.0,
    waited_s: float = 0.0,
) -> tuple[CpuEstimate, DemandState]:
    """Look at one vCPU with steady run and wait every 0.25 s."""
    for step in range(round(seconds / STEP_S) + 1):
        passed = step * STEP_S
        seen, state = estimate(
            state,
            snapshot(
                start_s + passed,
                counted_s + run * passed,
                None if wait is None else waited_s + wait * passed,
                guest=guest,
                affinity=affinity,
                topology=topology,
            ),
            holds or {},
            SETTINGS,
        )
    assert state is not None
    return seen, state


def only(seen: CpuEstimate) -> VcpuEstimate:
    (vcpu,) = seen.vcpus
    return vcpu


@pytest.mark.parametrize(
    ("run", "wait"),
    [(0.33, 0.34), (0.20, 0.60), (0.50, 0.0)],
    ids=["beside one hog", "beside three hogs", "alone"],
)
def test_a_vcpu_that_needs_half_a_pcpu_is_seen_to(run: float, wait: float) -> None:
    assert only(watch(run=run, wait=wait)[0]).demand_ratio == pytest.approx(0.50, abs=0.01)


def test_a_vcpu_that_never_rests_wants_a_whole_pcpu() -> None:
    assert only(watch(run=0.125, wait=0.875)[0]).demand_ratio > 0.95


def test_a_wholly_starved_vcpu_keeps_its_former_demand() -> None:
    _, state = watch(run=0.4, wait=0.0)
    seen, _ = watch(run=0.0, wait=1.0, state=state, start_s=103.0, counted_s=1.2, seconds=2)
    assert only(seen).demand_ratio == pytest.approx(0.4, abs=0.02)


def test_what_is_seen_of_a_starved_vcpu_is_not_remembered() -> None:
    """Seven of 1000 ms run and the rest waited for; once served it wants 0.4, and only that."""
    starved, state = watch(run=0.007, wait=0.98)
    assert only(starved).starved
    assert only(starved).history == ()
    assert not only(starved).settled
    # what it waited in the last slot is credited in the first one after
    seen, state = watch(
        run=0.4, wait=0.0, state=state, start_s=103.0, counted_s=0.021, waited_s=3.3, seconds=0.5
    )
    assert only(seen).history == ()
    seen, state = watch(
        run=0.4, wait=0.0, state=state, start_s=103.75, counted_s=0.321, waited_s=3.3, seconds=2
    )
    assert only(seen).history == pytest.approx((0.4,) * 4, abs=0.02)
    assert not only(seen).starved
    again, _ = watch(
        run=0.007, wait=0.98, state=state, start_s=106.0, counted_s=1.221, waited_s=3.3, seconds=1
    )
    assert only(again).history == pytest.approx((0.4,) * 5, abs=0.02)


def test_a_level_ends_when_a_starved_vcpu_must_want_more() -> None:
    """It wanted 0.01; now it gets 0.015 and waits for most of the time, so it wants more.

    One that wanted 0.4 may want the same.
    """
    for former, remembered in ((0.01, 0), (0.4, 7)):
        _, state = watch(run=former, wait=0.0)
        seen, _ = watch(
            run=0.015, wait=0.9, state=state, start_s=103.25, counted_s=3.25 * former, seconds=3
        )
        assert only(seen).starved
        assert len(only(seen).history) == remembered


def test_an_idle_vcpu_on_a_busy_pcpu_is_doubted_but_not_starved() -> None:
    idle, _ = watch(run=0.005, wait=0.02)
    assert not only(idle).starved
    assert only(idle).history == pytest.approx((0.005,) * 6, abs=0.001)
    assert not only(idle).settled


def test_without_wait_demand_is_what_it_got() -> None:
    vcpu = only(watch(run=0.3, wait=None)[0])
    assert vcpu.wait_ratio is None
    assert vcpu.demand_ratio == pytest.approx(0.3)


def test_wait_credited_late_does_not_turn_into_idling() -> None:
    state = None
    for step in range(13):
        wait_s = 0.5 * (step - step % 2) * STEP_S * 1.0
        seen, state = estimate(
            state, snapshot(100 + step * STEP_S, 0.5 * step * STEP_S, wait_s), {}, SETTINGS
        )
    assert only(seen).demand_ratio > 0.95


def test_quota_caps_demand() -> None:
    guest = GuestSample("a", "web1", "1", definition=GuestDefinition(quota_ratio=0.5))
    assert only(watch(run=0.5, wait=0.5, guest=guest)[0]).demand_ratio == 0.5


def test_the_first_second_is_too_short_to_move_anybody() -> None:
    assert "not seen" in (only(watch(run=0.5, wait=0, seconds=0.5)[0]).fixed or "")
    assert only(watch(run=0.5, wait=0, seconds=1)[0]).fixed is None


@pytest.mark.parametrize("incarnation", ["1", "2"])
def test_counters_that_start_again_start_the_vcpu_again(incarnation: str) -> None:
    _, state = watch(run=0.5, wait=0.0)
    guest = GuestSample("a", "web1", incarnation)
    seen, _ = estimate(state, snapshot(103.25, 0.1, 0.0, guest=guest), {}, SETTINGS)
    assert "not seen" in (only(seen).fixed or "")
    assert only(seen).history == ()


def test_a_gap_is_not_believed() -> None:
    """The host was suspended: five seconds in which nothing ran are not idling."""
    _, state = watch(run=0.5, wait=0.0)
    seen, state = estimate(state, snapshot(108.0, 1.6, 0.0), {}, SETTINGS)
    assert only(seen).demand_ratio == pytest.approx(0.5)
    assert "not seen" in (only(seen).fixed or "")


def test_a_pause_is_not_idling() -> None:
    _, state = watch(run=0.5, wait=0.0)
    paused = GuestSample("a", "web1", "1", state=GuestState.PAUSED)
    for step in range(4):
        seen, state = estimate(
            state, snapshot(103.25 + step / 4, 1.5, 0.0, guest=paused), {}, SETTINGS
        )
        assert only(seen).fixed == "paused"
        assert only(seen).demand_ratio == 0
    seen, _ = watch(run=0.5, wait=0.0, state=state, start_s=104.25, counted_s=1.5, seconds=1.25)
    assert only(seen).demand_ratio == pytest.approx(0.5, abs=0.001)
    assert only(seen).fixed is None


@pytest.mark.parametrize(
    ("guest", "reason"),
    [
        (
            GuestSample("a", "w", "1", settings=GuestSettings(exclude=frozenset({RoleName.CPU}))),
            "excluded",
        ),
        (
            GuestSample("a", "w", "1", definition=GuestDefinition(pinned_vcpus=frozenset({0}))),
            "pinned",
        ),
        (GuestSample("a", "w", "1", definition=GuestDefinition(cpuset=frozenset({7}))), "cpuset"),
    ],
)
def test_reasons_to_leave_a_vcpu_alone(guest: GuestSample, reason: str) -> None:
    vcpu = only(watch(run=0.5, wait=0, guest=guest)[0])
    assert reason in (vcpu.fixed or "")
    assert vcpu.allowed


def test_a_held_guest_is_fixed_until_the_hold_ends() -> None:
    holds = {"a": Hold(until_s=102.5, text="somebody else pinned it")}
    assert only(watch(run=0.5, wait=0, seconds=2, holds=holds)[0]).fixed == holds["a"].text
    assert only(watch(run=0.5, wait=0, seconds=3, holds=holds)[0]).fixed is None


def test_an_unreadable_affinity_is_left_alone() -> None:
    assert "affinity" in (only(watch(run=0.5, wait=0, affinity=None)[0]).fixed or "")


def test_allowed_is_the_cpuset_on_usable_cpus() -> None:
    pcpus = flat_topology(4).pcpus
    topology = Topology((*pcpus[:3], replace(pcpus[3], online=False)))
    guest = GuestSample("a", "w", "1", definition=GuestDefinition(cpuset=frozenset({2, 3})))
    assert only(watch(run=0.5, wait=0, guest=guest, topology=topology)[0]).allowed == {2}


def test_a_rise_to_a_whole_pcpu_is_doubted_for_six_seconds_and_others_for_two() -> None:
    _, state = watch(run=0.01, wait=0.0, seconds=8)
    for run, doubted_s in ((1.0, 6.0), (0.4, 2.0)):
        early, _ = watch(
            run=run, wait=0, state=state, start_s=108.25, counted_s=0.1, seconds=doubted_s - 0.5
        )
        late, _ = watch(
            run=run, wait=0, state=state, start_s=108.25, counted_s=0.1, seconds=doubted_s + 1
        )
        assert not only(early).settled
        assert only(late).settled


@pytest.mark.parametrize(
    ("interval_s", "sample_s"), [(0.1, 0.1), (0.2, 0.1), (1, 0.25), (2, 0.5), (4, 1), (60, 1)]
)
def test_samples_are_at_most_a_second_and_never_longer_than_the_interval(
    interval_s: float, sample_s: float
) -> None:
    assert sample_period_s(interval_s) == pytest.approx(sample_s)


def test_settings_name_the_field_that_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"window_s must be 0\.01 to 3600, got 0"):
        DemandSettings(window_s=0)


@given(st.permutations(range(5)))
def test_the_order_of_guests_does_not_matter(order: list[int]) -> None:
    world = host(2, [noisy(0.1 * i, i) for i in range(5)], [0, 0, 1, None, None])
    state = shuffled_state = None
    for _ in range(5):
        world.advance(0.25)
        sorted_one = world.sample()
        shuffled_one = replace(sorted_one, guests=tuple(sorted_one.guests[i] for i in order))
        seen, state = estimate(state, sorted_one, {}, SETTINGS)
        shuffled, shuffled_state = estimate(shuffled_state, shuffled_one, {}, SETTINGS)
        assert shuffled == seen


def test_the_control_groups_weight_counts_before_ours() -> None:
    """The kernel shares by it, whatever else the owner has told us."""

    def weight(shares: int | None) -> float:
        definition = GuestDefinition(cpu_shares=shares)
        guest = GuestSample(
            "a", "w", "1", definition=definition, settings=GuestSettings(weight=3.0)
        )
        return watch(run=0.5, wait=0.0, guest=guest)[0].vcpus[0].weight

    assert weight(2048) == 2.0
    assert weight(None) == 3.0
