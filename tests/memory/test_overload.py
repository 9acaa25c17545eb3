"""What is said of overload: once, exactly, and who should go."""

from dataclasses import dataclass, field, replace

from tests.memory.make import MIB, believed, whole
from virtbalance.memory.overload import OverloadWatch, watch_overload
from virtbalance.model.memory_estimate import GuestMemoryEstimate, MemoryEstimate
from virtbalance.model.tick import Event


@dataclass
class Watching:
    watch: OverloadWatch = field(default_factory=OverloadWatch)

    def see(self, at_s: float, estimate: MemoryEstimate) -> list[Event]:
        events, self.watch = watch_overload(self.watch, estimate, at_s, 120.0)
        return list(events)


def guests(*hard_mib: float) -> list[GuestMemoryEstimate]:
    return [believed(name, hard=hard) for name, hard in zip("abcd", hard_mib, strict=False)]


def test_minima_that_do_not_fit_are_told_once_with_the_exact_shortfall() -> None:
    watching = Watching()
    short = whole(believed("a", minimum=800), believed("b", minimum=700), budget=1400)
    (event,) = watching.see(0, short)
    assert (event.kind, event.figures) == ("overcommitted", {"shortfall_kib": 100 * MIB})
    assert watching.see(1, short) == []
    assert watching.see(2, whole(believed("a"), budget=2000)) == []
    assert len(watching.see(3, short)) == 1


def test_an_overload_is_told_only_if_it_lasts_and_once() -> None:
    watching = Watching()
    short = whole(*guests(900, 600, 1500), budget=2500)
    assert [watching.see(second, short) for second in (0, 60, 119)] == [[], [], []]
    (event,) = watching.see(121, short)
    assert (event.kind, event.uuid) == ("overload", "b")
    assert event.text == (
        "500 MiB have been missing for 121 s to what the guests need at once: "
        "migrate one, best b (600 MiB)"
    )
    assert watching.see(200, short) == []


def test_a_break_starts_the_time_anew() -> None:
    watching = Watching()
    short = whole(*guests(900, 600), budget=1400)
    watching.see(0, short)
    watching.see(100, replace(short, budget_kib=1500 * MIB))
    assert watching.see(130, short) == []
    assert watching.see(249, short) == []
    assert len(watching.see(250, short)) == 1


def test_where_no_guest_alone_would_do_the_largest_should_go() -> None:
    watching = Watching()
    short = whole(*guests(900, 600, 1500), budget=1000)
    watching.see(0, short)
    (event,) = watching.see(120, short)
    assert event.uuid == "c"


def test_nobody_is_to_go_where_nobody_can_be_resized() -> None:
    watching = Watching()
    rock = whole(believed("a", fixed="it has no balloon device"), budget=-500)
    assert [watching.see(second, rock) for second in (0, 200)] == [[], []]


def test_what_is_reserved_for_a_guest_to_come_is_no_overload() -> None:
    watching = Watching()
    reserved = replace(whole(*guests(900, 600), budget=300), withheld_kib=1200 * MIB)
    assert [watching.see(second, reserved) for second in (0, 200)] == [[], []]
