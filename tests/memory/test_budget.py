"""What the host can give (memory.md, section 5)."""

from dataclasses import replace
from typing import Any

import pytest

from tests.memory.make import MIB, Watcher, guest, sample, snapshot
from virtbalance.memory.demand import estimate
from virtbalance.memory.settings import BudgetSettings, Commit, DemandSettings
from virtbalance.model.guest import GuestDefinition, GuestState
from virtbalance.model.reservation import Reservation
from virtbalance.model.snapshot import HostMemory

RESERVE_MIB = 819
OVERHEAD_MIB = 64


def mib(kib: float) -> int:
    return round(kib / MIB)


def limited(**settings: object) -> Watcher:
    return Watcher(DemandSettings(budget=BudgetSettings(**settings)))  # type: ignore[arg-type]


def test_the_budget_is_what_others_the_reserve_and_qemu_leave() -> None:
    # Of 16384 MiB 8192 are available; 2 x 512 of the rest are the guests'.
    seen = Watcher().whole(0, guest(sample(300), "a"), guest(sample(300), "b"))
    assert mib(seen.other_kib) == 16384 - 8192 - 2 * 512
    assert mib(seen.reserve_kib) == RESERVE_MIB
    assert mib(seen.budget_kib) == 16384 - 7168 - RESERVE_MIB - 2 * OVERHEAD_MIB
    assert mib(seen.pool_kib) == 655


@pytest.mark.parametrize(
    ("host_mib", "reserve_mib"), [(4096, 256), (6144, 307), (8192, 512), (65536, 3277)]
)
def test_the_reserve_by_size_of_the_host(host_mib: int, reserve_mib: int) -> None:
    seen = Watcher().whole(0, host_mib=host_mib, available_mib=host_mib)
    assert mib(seen.reserve_kib) == reserve_mib


def test_one_odd_figure_of_other_use_does_not_count_but_a_rise_is_remembered() -> None:
    watcher = Watcher()
    available = [15000, 15000, 9000, 15000, 9000, 9000, 15000, 15000]
    others = [
        mib(watcher.whole(second, available_mib=free).other_kib)
        for second, free in enumerate(available)
    ]
    assert others[:4] == [1384] * 4
    assert others[4:7] == [7384] * 3
    assert others[7] == round(7384 * 0.5 ** (1 / 60))
    assert mib(watcher.whole(66, available_mib=15000).other_kib) == 3692


def test_pages_merged_by_ksm_are_not_used_twice() -> None:
    host = HostMemory(16384 * MIB, 14000 * MIB, ksm_shared_kib=500 * MIB)
    seen = Watcher().whole(0, guest(sample(300, 2048)), memory=host)
    assert mib(seen.other_kib) == 16384 - 14000 - 2048 + 500


def test_budget_max_limits_the_guests_together() -> None:
    seen = limited(budget_max_kib=2000 * MIB).whole(0, guest(sample(300)))
    assert mib(seen.budget_kib) == 2000


def reserve(size_mib: float, *present: str) -> Reservation:
    return Reservation(round(size_mib * MIB), frozenset(present))


def test_a_reservation_comes_out_of_the_budget_with_room_for_dead_bands() -> None:
    guests = [guest(sample(300, 2048), name) for name in "ab"]
    free = Watcher().whole(0, *guests, available_mib=9192)
    kept = Watcher(reservations=[reserve(3000, "a", "b")]).whole(0, *guests, available_mib=9192)
    assert mib(free.budget_kib - kept.budget_kib) == 3000 + 2 * 16
    assert mib(kept.reserved_kib) == 3000
    assert mib(free.budget_kib - free.committed_kib) == 9192 - RESERVE_MIB - 2 * OVERHEAD_MIB
    assert mib(kept.reserved_free_kib) == 3000


def test_a_reservation_is_free_as_far_as_nobody_has_it() -> None:
    watcher = Watcher(reservations=[reserve(3000, "a")], targets={"a": 1024 * MIB})
    seen = watcher.whole(0, guest(sample(300, 6144, 8192), "a"), available_mib=2000)
    # What the balloon is asked to give counts when it has given it.
    assert mib(seen.reserved_free_kib) == 2000 - RESERVE_MIB - OVERHEAD_MIB
    watcher.reservations = [reserve(3000, "a"), reserve(500, "a")]
    seen = watcher.whole(1, guest(sample(300, 1024, 8192), "a"), available_mib=2000 + 5120)
    assert mib(seen.reserved_free_kib) == 3500


def test_a_reservation_is_used_up_by_who_has_come_since() -> None:
    def left(*sizes_mib: int, reserved: list[Reservation]) -> int:
        watcher = Watcher(reservations=reserved)
        guests = [guest(sample(300, size), f"g{i}") for i, size in enumerate(sizes_mib)]
        return mib(watcher.whole(0, *guests).reserved_kib)

    assert left(512, reserved=[reserve(3000, "g0")]) == 3000
    assert left(512, 1000, reserved=[reserve(3000, "g0")]) == 2000
    assert left(512, 2048, 2048, reserved=[reserve(3000, "g0")]) == 0
    # The first reservation first, and nobody's memory for two of them.
    two = [reserve(1500, "g0"), reserve(1000, "g0")]
    assert left(512, 2048, reserved=two) == 452
    # Who came before the second one uses up the first one only.
    assert left(512, 2048, reserved=[reserve(1500, "g0"), reserve(1000, "g0", "g1")]) == 1000


def test_a_fixed_guest_that_has_come_uses_a_reservation_up_with_its_charge() -> None:
    watcher = Watcher(reservations=[reserve(3000)])
    paused = guest(sample(300, 1000), state=GuestState.PAUSED)
    assert mib(watcher.whole(0, paused).reserved_kib) == 2000


def test_a_fixed_guest_is_charged_what_it_has_or_may_have() -> None:
    watcher = Watcher(targets={"b": 1024 * MIB})
    paused = guest(sample(300), "b", state=GuestState.PAUSED)
    seen = watcher.whole(0, guest(sample(300), "a"), paused)
    assert mib(seen.guests[1].charge_kib) == 1024
    assert mib(seen.budget_kib) == 16384 - 7168 - RESERVE_MIB - 2 * OVERHEAD_MIB - 1024


def test_a_guest_in_huge_pages_is_charged_only_what_lies_outside() -> None:
    huge = GuestDefinition(unswappable="hugepages")
    pooled = guest(sample(300, 2048, rss_kib=90 * MIB), definition=huge)
    assert mib(Watcher().see(0, pooled).charge_kib) == 90
    pinned = GuestDefinition(unswappable="locked memory")
    whole = guest(sample(300, 2048, rss_kib=2100 * MIB), definition=pinned)
    assert mib(Watcher().see(0, whole).charge_kib) == 2048


def test_measured_charges_what_a_fixed_guest_uses_and_some() -> None:
    watcher = limited(commit=Commit.MEASURED)
    paused = guest(sample(300, 2048, rss_kib=1000 * MIB), state=GuestState.PAUSED)
    assert mib(watcher.see(0, paused).charge_kib) == 1612


def stuck_beside(commit: Commit, **other: Any) -> tuple[int, int]:
    """Return the budget before and after a guest of 6000 MiB, 400 of them resident, is stuck."""
    watcher = limited(commit=commit)
    watcher.targets = {"deaf": 1000 * MIB}
    budgets_kib = []
    for at_s in range(9):
        deaf = guest(sample(300, 6000, 8192, rss_kib=400 * MIB, at_s=at_s), "deaf")
        near = guest(sample(900, 1000, 8192, at_s=at_s, **other), "near")
        seen = watcher.whole(at_s, deaf, near)
        budgets_kib.append(seen.budget_kib)
    assert seen.guests[0].stuck
    return mib(budgets_kib[0]), mib(budgets_kib[-1])


def test_of_a_stuck_guest_what_it_was_never_seen_to_use_is_lent_to_guests_with_swap() -> None:
    before, after = stuck_beside(Commit.STRICT, swap_out_kib=50 * MIB)
    assert after == before - 6000
    # It keeps 1.1 x 400 + 512; 5048 are idle, but the other could give back 1000 - 819 only.
    before, after = stuck_beside(Commit.REPORTED, swap_out_kib=50 * MIB)
    assert after == pytest.approx(before - 6000 + 181, abs=1)
    before, after = stuck_beside(Commit.REPORTED)
    assert after == before - 6000


def test_what_a_guest_is_still_to_be_given_is_not_idle() -> None:
    watcher = limited(commit=Commit.REPORTED)
    watcher.targets = {"deaf": 6000 * MIB}
    for at_s in (*range(9), 40):
        deaf = guest(sample(300, 1000, 8192, rss_kib=400 * MIB, at_s=at_s), "deaf")
        near = guest(sample(900, 4000, 8192, at_s=at_s, swap_out_kib=50 * MIB), "near")
        seen = watcher.whole(at_s, deaf, near)
        # It keeps 1.1 x 400 + 512 of the 1000 it has, when it is stuck and when it is tried again.
        assert mib(seen.guests[0].idle_kib) == (48 if at_s in (6, 7, 8, 40) else 0)
    assert not seen.guests[0].fixed


def test_who_has_not_followed_is_not_counted_on_to_return_what_is_lent() -> None:
    watcher = limited(commit=Commit.REPORTED)
    watcher.targets = {"deaf": 1000 * MIB, "near": 2000 * MIB}
    for at_s in (*range(9), 40):
        deaf = guest(sample(300, 6000, 8192, rss_kib=400 * MIB, at_s=at_s), "deaf")
        near = guest(sample(900, 1000, 8192, at_s=at_s, swap_out_kib=50 * MIB), "near")
        seen = watcher.whole(at_s, deaf, near)
        if at_s == 0:
            before = seen
    assert [g.fixed for g in seen.guests] == [None, None]
    assert mib(seen.guests[0].idle_kib) == 5048
    assert mib(seen.budget_kib) == mib(before.budget_kib)


def test_qemu_is_charged_what_it_was_seen_to_need() -> None:
    watcher = Watcher()
    before = watcher.whole(0, guest(sample(300))).budget_kib
    fat = guest(sample(300, rss_kib=712 * MIB))
    # 200 MiB more resident is 200 less of other use and 200 - 64 more of overhead.
    seen = watcher.whole(1, fat, available_mib=8192 - 200)
    assert mib(seen.budget_kib - before) == -(200 - OVERHEAD_MIB)


def test_a_guest_without_resident_size_is_taken_to_use_all_it_has() -> None:
    seen = Watcher().whole(0, guest(sample(300, rss_kib=None)))
    assert mib(seen.other_kib) == 16384 - 8192 - 512


def test_a_host_that_can_not_be_read_gives_nothing_and_moves_nobody() -> None:
    watcher = Watcher()
    watcher.whole(0, guest(sample(300)))
    blind = replace(snapshot(1, guest(sample(300, at_s=1))), memory=None)
    seen, _ = estimate(watcher.state, blind, {}, {}, DemandSettings(), [reserve(500)])
    assert seen.budget_kib == 0
    assert (seen.reserved_kib, seen.reserved_free_kib) == (500 * MIB, 0)
    assert seen.guests[0].fixed == "the host's memory could not be read"
