"""The tick: in time, in order, undoable, and unimpressed by what fails around it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.control.fakes import FakeClock, FakeHost, FakeRole, Recorder, pin
from virtbalance.control.deadline import OverrunError, UnlimitedDecider
from virtbalance.control.journal import Journal, JournalError
from virtbalance.control.loop import Loop, LoopSettings
from virtbalance.control.observers import DetachedObserver
from virtbalance.model.guest import RoleName
from virtbalance.model.snapshot import HostFact
from virtbalance.model.tick import Status

SETTINGS = LoopSettings(
    period_s=1.0,
    looks=1,
    warm_up_looks=0,
    warm_up_s=0.0,
    sense_deadline_s=0.5,
    decide_limit_s=0.5,
    act_deadline_s=0.5,
    restore_on_exit=True,
    ticks=3,
)


class Bench:
    """A loop with everything around it within reach."""

    def __init__(self, tmp_path: Path, *wishes: Any, **host: Any) -> None:
        self.clock = FakeClock()
        self.host = FakeHost(self.clock, **host)
        self.role = FakeRole(*wishes)
        self.journal = Journal(tmp_path, "boot")
        self.recorder = Recorder()
        self.decider: Any = UnlimitedDecider()

    def loop(self, *, dry_run: bool = False, **settings: Any) -> Loop:
        self.observer = DetachedObserver(self.recorder)
        return Loop(
            self.host,
            self.role,
            replace(SETTINGS, **settings),
            clock=self.clock,
            decider=self.decider,
            journal=None if dry_run else self.journal,
            observers=[self.observer],
        )

    def run(self, *, dry_run: bool = False, **settings: Any) -> bool:
        complete = self.loop(dry_run=dry_run, **settings).run()
        assert self.observer.finish(within_s=5.0)
        return complete


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_ticks_come_at_fixed_times_whatever_they_take(bench: Bench) -> None:
    bench.host.sample_takes_ns = lambda _: 300_000_000
    bench.run()
    assert bench.clock.slept_until_ns == [1_000_000_000, 2_000_000_000, 3_000_000_000]


def test_an_overrun_skips_ticks_and_queues_none(bench: Bench) -> None:
    bench.host.sample_takes_ns = lambda n: 2_500_000_000 if n == 1 else 0
    bench.run()
    assert bench.clock.slept_until_ns == [1_000_000_000, 4_000_000_000, 5_000_000_000]
    assert [tick.number for tick in bench.recorder.ticks] == [1, 2, 3]
    (event,) = bench.recorder.ticks[1].events
    assert (event.kind, event.figures) == ("overrun", {"missed": 2})


def test_looks_are_spread_evenly_and_the_decision_is_at_the_last(bench: Bench) -> None:
    bench.run(looks=4, warm_up_looks=1, ticks=1)
    assert bench.role.looks_ns == [0, 250_000_000, 500_000_000, 750_000_000, 1_000_000_000]
    assert bench.role.decisions_s == [1.0]


def test_the_way_to_undo_is_on_disk_before_the_change(tmp_path: Path) -> None:
    bench = Bench(tmp_path, (pin(),))
    seen: list[bool] = []
    bench.host.before_apply = lambda: seen.append("u1" in bench.journal.entries())
    bench.run(ticks=1)
    assert seen[0]


def test_everything_is_put_back_at_the_end_and_forgotten(tmp_path: Path) -> None:
    bench = Bench(tmp_path, (pin(),))
    assert bench.run(ticks=1)
    assert [action.cpus for action in bench.host.applied] == [{1}, {0, 1}]  # type: ignore[union-attr]
    assert bench.journal.entries() == {}
    assert [event.kind for event in bench.recorder.notices] == ["restored"]


def test_what_cannot_be_put_back_stays_on_record(tmp_path: Path) -> None:
    bench = Bench(tmp_path, (pin(),), status=Status.LATE)
    assert not bench.run(ticks=1)
    assert "u1" in bench.journal.entries()
    assert [event.kind for event in bench.recorder.notices] == ["not-restored"]


def test_a_crashed_run_is_undone_before_anything_else(tmp_path: Path) -> None:
    crashed = Bench(tmp_path, (pin(),))
    crashed.journal.update(RoleName.CPU, crashed.role.undo([pin()]))
    bench = Bench(tmp_path)
    bench.run(ticks=1)
    assert [str(action.reason) for action in bench.host.applied] == ["as it was"]
    assert bench.role.looks_ns == [1_000_000_000]


def test_kept_changes_are_taken_over_by_the_next_run(tmp_path: Path) -> None:
    first = Bench(tmp_path, (pin(),))
    assert first.run(ticks=1, restore_on_exit=False)
    assert len(first.host.applied) == 1
    second = Bench(tmp_path)
    second.run(ticks=1, restore_on_exit=False)
    assert list(second.role.adopted[0]) == ["u1"]
    assert second.host.applied == []


def test_a_dry_run_changes_nothing_and_says_what_it_would_do(tmp_path: Path) -> None:
    bench = Bench(tmp_path, (pin(),))
    bench.run(dry_run=True, ticks=1)
    assert bench.host.applied == []
    assert [o.status for o in bench.recorder.ticks[0].outcomes] == [Status.PLANNED]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("failure", [ZeroDivisionError("not today"), SystemExit("not today")])
def test_a_policy_that_raises_is_held_and_counted(tmp_path: Path, failure: BaseException) -> None:
    bench = Bench(tmp_path)
    bench.role.fail = failure
    bench.run(ticks=2)
    assert bench.host.applied == []
    for tick in bench.recorder.ticks:
        (event,) = tick.events
        assert event.kind == "policy-failed"
        assert "not today; holding" in event.text


def test_a_policy_that_takes_too_long_is_held_and_counted(bench: Bench) -> None:
    class Slow:
        def call(self, decision: object, limit_s: float) -> object:
            raise OverrunError(f"no answer within {limit_s} s")

    bench.decider = Slow()
    bench.run(ticks=1)
    assert [event.kind for event in bench.recorder.ticks[0].events] == ["policy-overrun"]


def test_a_lost_connection_is_retried_with_growing_pauses(tmp_path: Path) -> None:
    bench = Bench(tmp_path, lost_at=frozenset({2}), failing_reconnects=3)
    bench.run()
    kinds = [event.kind for event in bench.recorder.notices]
    assert kinds == ["connection-lost", "reconnected"]
    assert bench.host.reconnects == 4
    # lost at the second tick (2 s); attempts after 1, 2, 4 and 8 s
    assert bench.clock.slept_until_ns[2:6] == [n * 1_000_000_000 for n in (3, 5, 9, 17)]
    assert len(bench.recorder.ticks) == 3


def test_being_stopped_while_disconnected_says_what_was_not_put_back(tmp_path: Path) -> None:
    bench = Bench(tmp_path, (pin(),), lost_at=frozenset(range(2, 100)), failing_reconnects=99)
    loop = bench.loop(ticks=None)
    bench.host.reconnect = loop.stop  # type: ignore[method-assign]
    assert not loop.run()
    assert bench.observer.finish(within_s=5.0)
    assert "virt-balance restore" in bench.recorder.notices[-1].text
    assert "u1" in bench.journal.entries()


def test_without_a_journal_entry_nothing_is_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: object) -> None:
        raise JournalError("disk full")

    bench = Bench(tmp_path, (pin(),))
    monkeypatch.setattr(bench.journal, "update", full_disk)
    bench.run(ticks=1)
    assert bench.host.applied == []
    (tick,) = bench.recorder.ticks
    assert [event.kind for event in tick.events] == ["journal-failed"]
    assert [outcome.status for outcome in tick.outcomes] == [Status.REFUSED]


def test_facts_about_the_host_are_said_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path, facts=(HostFact("steal", "this host is itself a guest"),))
    bench.run()
    assert [event.kind for event in bench.recorder.notices] == ["host-steal"]


def test_an_unexpected_error_still_puts_everything_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, (pin(),))

    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    loop = bench.loop()
    monkeypatch.setattr(bench.role, "record", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        loop.run()
    assert [str(action.reason) for action in bench.host.applied] == ["because", "as it was"]
