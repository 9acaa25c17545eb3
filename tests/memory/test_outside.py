"""Telling somebody else's resize from a balloon on its way (memory.md, section 8)."""

from dataclasses import dataclass, field

import pytest

from tests.memory.make import MIB, guest, sample, snapshot
from virtbalance.memory.outside import OutsideChange, OutsideState, observe
from virtbalance.model.guest import GuestDefinition, GuestState


@dataclass
class Observer:
    """Sees one guest once a second, and accepts what it is told, as the control loop does."""

    target: float = 512
    definition: GuestDefinition = field(default_factory=GuestDefinition)
    state: OutsideState | None = None
    at_s: int = 0
    maximum: float = 2048

    def see(self, *actuals: float, **about: object) -> list[OutsideChange]:
        changes: list[OutsideChange] = []
        for actual in actuals:
            self.at_s += 1
            here = guest(
                sample(100, actual, self.maximum, at_s=self.at_s),
                definition=self.definition,
                **about,  # type: ignore[arg-type]
            )
            targets = {"g": round(self.target * MIB)}
            met, self.state = observe(
                self.state, snapshot(self.at_s, here), targets, 1000.0 + self.at_s
            )
            for change in met:
                self.target = change.seen_kib / MIB
            changes += met
        return changes


def brief(changes: list[OutsideChange]) -> list[tuple[int, bool]]:
    return [(change.seen_kib // MIB, change.continued) for change in changes]


def test_a_resize_of_several_looks_is_one_change() -> None:
    changes = Observer(700).see(700, 700, 640, 570, 512, 512, 512)
    assert brief(changes) == [(640, False), (570, True), (512, True)]
    assert changes[0].text == "balloon at 640 MiB, we had set 700 MiB"


def test_two_resizes_are_two_changes() -> None:
    changes = Observer(700).see(700, 640, 640, 640, 512, 512)
    assert brief(changes) == [(640, False), (512, False)]


@pytest.mark.parametrize("steps", [(512, 590, 660, 700, 700), (512, 513, 514, 514, 514, 520)])
def test_a_balloon_on_its_way_is_none_however_slow(steps: tuple[float, ...]) -> None:
    assert Observer(700).see(*steps) == []


def test_nor_one_that_overshoots_by_its_grain() -> None:
    assert Observer(700).see(800, 750, 697, 700, 703, 698) == []


def test_one_turned_back_on_its_way_is_a_change() -> None:
    assert brief(Observer(700).see(512, 590, 540, 512, 512)) == [(540, False), (512, True)]


def test_a_new_target_of_ours_is_where_to_look_from() -> None:
    observer = Observer(700)
    observer.see(700, 700)
    observer.target = 500
    assert observer.see(650, 600, 500) == []
    # Turned round in full motion: it may still have gone on a little before it heard of it.
    observer.target = 800
    assert observer.see(490, 650, 800) == []


def test_feeding_a_reset_guest_again_ends_the_change() -> None:
    observer = Observer(700)
    assert brief(observer.see(700, 600)) == [(600, False)]
    observer.target = 720
    assert observer.see(560, 640, 720, 720) == []


def test_a_jump_up_counts_when_it_stays() -> None:
    assert brief(Observer(512).see(512, 900, 1000, 1000, 1000)) == [(1000, False)]


def test_a_reboot_comes_back_by_itself_and_is_no_change() -> None:
    assert Observer(512).see(512, 2000, 1500, 900, 512) == []


def test_a_guest_that_helps_itself_is_none() -> None:
    observer = Observer(512, GuestDefinition(autodeflate=True))
    assert observer.see(512, 600, 700, 700, 600, 512) == []


def test_paused_late_unknown_and_restarted_guests_are_not_judged() -> None:
    assert Observer().see(512, 400, 400, state=GuestState.PAUSED) == []
    observer = Observer()
    observer.see(512)
    assert observer.see(1024, 1024, 1024, incarnation="2") == []
    met, _ = observe(None, snapshot(0, guest(sample(100)), guest(None, "b")), {"b": 1}, 0.0)
    assert met == ()


@pytest.mark.parametrize("size_first", [True, False])
def test_memory_plugged_in_is_accepted_and_no_conflict(size_first: bool) -> None:
    observer = Observer(512)
    assert observer.see(512, 512) == []
    early = observer.see(1536) if size_first else []
    observer.maximum = 3072
    assert brief([*early, *observer.see(1536, 1536)]) == [(1536, True)]
    assert observer.target == 1536
    assert brief(observer.see(1000)) == [(1000, False)], "what comes later is one"


def test_memory_plugged_out_takes_the_size_along() -> None:
    observer = Observer(1536, maximum=3072)
    observer.see(1536)
    observer.maximum = 2048
    assert brief(observer.see(512, 512)) == [(512, True)]
