"""What the policies want, and the faults of other systems that ours must not have."""

from tests.memory.make import MIB, Watcher, believed, guest, sample, whole
from virtbalance.memory.allocation import Overload
from virtbalance.memory.policies.fair import Fair
from virtbalance.memory.policies.hold import Hold
from virtbalance.model.memory_estimate import MemoryEstimate
from virtbalance.model.plan import MemoryPlan


def wanted(estimate: MemoryEstimate, overload: Overload = Overload.FAIR) -> dict[str, int]:
    plan, _ = Fair().decide(None, estimate, Fair.Config(overload), 0.0)
    return {size.uuid: size.size_kib // MIB for size in plan.sizes}


def reasons(estimate: MemoryEstimate) -> list[str]:
    plan, _ = Fair().decide(None, estimate, Fair.Config(), 0.0)
    return [str(size.reason) for size in plan.sizes]


def test_everybody_gets_what_it_needs_where_that_fits() -> None:
    here = whole(believed("a", used=300), believed("b", used=900, actual=1024))
    assert wanted(here) == {"a": 428, "b": 1028}
    assert reasons(here)[0] == (
        "it uses 300 MiB, soon 0 more, and needs 400; may have 428 of 8192: "
        "all it needs, cache included"
    )


def test_where_it_does_not_fit_nobody_keeps_more_than_it_needs_while_another_starves() -> None:
    here = whole(
        believed("idle", used=300, actual=1024),
        believed("busy", used=900, actual=1000, hard=1500),
        budget=1500,
    )
    assert wanted(here) == {"busy": 1100, "idle": 400}
    assert reasons(here)[0].endswith("may have 1100 of 1500: its share by weight")


def test_overload_can_be_met_by_protecting_some() -> None:
    here = whole(
        believed("a", used=900, hard=1000), believed("b", used=900, hard=1200), budget=1500
    )
    assert wanted(here) == {"a": 750, "b": 750}
    assert wanted(here, Overload.PROTECT) == {"a": 1000, "b": 500}


def test_protect_lets_who_has_what_it_needs_keep_it_and_guesses_come_last() -> None:
    here = whole(
        believed("a", used=900, actual=1000, hard=1000),
        believed("b", used=500, actual=520, hard=650, hidden=True),
        believed("c", used=500, actual=520, hard=700, hidden=True),
        budget=1800,
    )
    assert wanted(here, Overload.PROTECT) == {"a": 1000, "b": 400, "c": 400}


def test_guests_that_must_not_shrink_keep_what_they_have_while_all_fits() -> None:
    here = [believed("new", actual=1000, growable_only="it is new"), believed("b", hard=1500)]
    assert wanted(whole(*here, budget=2000)) == {"new": 1000, "b": 1000}
    assert reasons(whole(*here, budget=2000))[1].endswith("as it is, it is new")
    assert wanted(whole(*here, budget=1200))["new"] == 400, "more is committed than there is"


def test_fixed_guests_are_not_spoken_of() -> None:
    assert wanted(whole(believed(fixed="it is paused"))) == {}


def test_minima_above_the_budget_are_all_that_is_wanted() -> None:
    here = whole(believed("a", minimum=600), believed("b", minimum=600), budget=1000)
    assert wanted(here) == {"a": 600, "b": 600}
    assert here.shortfall_kib == 200 * MIB
    assert reasons(here)[0].endswith("may have 600 of 1000: its minimum, it needs no more")


def test_hold_wants_nothing() -> None:
    assert Hold().decide(None, whole(believed()), None, 0.0) == (MemoryPlan(), None)


# Faults of other systems


def test_a_starving_guest_is_not_shrunk() -> None:
    # The original program computes the new size from the free figure: 10 + 300 MiB, from 1024.
    watcher = Watcher()
    for second in range(4):
        watcher.see(second, guest(sample(1014, 1024, at_s=second)))
    assert watcher.last is not None
    assert wanted(watcher.last)["g"] > 1024


def test_a_full_cache_is_not_need() -> None:
    # MOM and others take balloon - unused for used, and so feed a guest that reads files.
    watcher = Watcher()
    full = [guest(sample(300, 1024, cache=720), "a"), guest(sample(900, 1024), "b")]
    estimate = watcher.whole(0, *full)
    assert [g.hard_kib // MIB for g in estimate.guests] == [400, 1000]


def test_a_floor_is_a_floor() -> None:
    # MOM's minimum is 0 on KVM, and libvirt accepts a target of 1 KiB.
    watcher = Watcher()
    assert watcher.see(0, guest(sample(60))).hard_kib == 256 * MIB
