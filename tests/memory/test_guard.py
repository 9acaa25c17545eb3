"""What the guard makes of a policy's wishes (memory.md, sections 7 and 9)."""

import math
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.memory.make import MIB, believed, whole, wishes
from virtbalance.memory.guard import GuardState, guard
from virtbalance.memory.settings import GuardSettings
from virtbalance.model.hold import Hold
from virtbalance.model.memory_estimate import GuestMemoryEstimate, MemoryEstimate
from virtbalance.model.plan import DesiredSize, MemoryPlan, Reason, Resize, Verdict
from virtbalance.model.snapshot import HostMemory


@dataclass
class Guarding:
    """Runs the guard, a second a step."""

    settings: GuardSettings = field(default_factory=GuardSettings)
    holds: dict[str, Hold] = field(default_factory=dict)
    state: GuardState | None = None
    now_s: float = 0.0
    verdict: Verdict = field(default_factory=Verdict)

    def does(
        self, *guests: GuestMemoryEstimate, plan: MemoryPlan, after_s: float = 1.0, **host: Any
    ) -> dict[str, int]:
        """Return the targets set, in MiB by guest."""
        return self.does_on(whole(*guests, **host), plan, after_s)

    def does_on(
        self, estimate: MemoryEstimate, plan: MemoryPlan, after_s: float = 1.0
    ) -> dict[str, int]:
        self.now_s += after_s
        self.verdict, self.state = guard(
            self.state, estimate, plan, self.holds, self.settings, self.now_s
        )
        resizes = [action for action in self.verdict.actions if isinstance(action, Resize)]
        return {resize.uuid: resize.target_kib // MIB for resize in resizes}

    @property
    def rules(self) -> list[str]:
        """Rules of the amendments."""
        return [amendment.reason.rule for amendment in self.verdict.amendments]


def host(available_mib: float, some: float = 0.0, full: float = 0.0) -> HostMemory:
    return HostMemory(16384 * MIB, round(available_mib * MIB), some, full)


# Shrinking while nobody is in need


def test_a_step_is_at_most_half_of_what_is_usable() -> None:
    small = believed(used=200, actual=380, maximum=512, minimum=100)
    assert Guarding().does(small, plan=wishes(g=250)) == {"g": 300}
    assert Guarding().does(small._replace(used_kib=300 * MIB), plan=wishes(g=250)) == {}


def test_no_guest_is_taken_below_what_it_uses_and_100_mib() -> None:
    guarding = Guarding()
    assert guarding.does(believed(used=400, actual=560), plan=wishes(g=450)) == {"g": 500}
    (resize,) = guarding.verdict.actions
    assert str(resize.reason).endswith("it uses 400 MiB, less than 500 MiB is not safe")
    guarding.does(believed(used=400, actual=500), plan=wishes(g=400))
    assert guarding.rules == ["safe"]


def test_nor_more_than_100_mib_or_a_twentieth_of_the_maximum() -> None:
    guarding = Guarding()
    small = believed(used=200, actual=700, maximum=1024)
    assert guarding.does(small, plan=wishes(g=300)) == {"g": 600}
    large = believed(used=200, actual=7000, maximum=8192)
    assert guarding.does(large, plan=wishes(g=1000)) == {"g": 6590}
    (resize,) = guarding.verdict.actions
    assert str(resize.reason) == (
        "it should be so; 7000 to 6590 MiB now: a part of the 6800 MiB it can spare at once"
    )


def test_a_guest_with_100_mib_usable_gives_nothing_even_to_one_that_starves() -> None:
    starving = believed("s", used=500, hard=1500)
    poor = believed(used=380, actual=480)
    done = Guarding().does(poor, starving, plan=wishes(g=256, s=1500), budget=992)
    assert done == {}


def test_little_is_not_worth_taking_but_the_last_step_is() -> None:
    guarding = Guarding()
    assert guarding.does(believed(used=200), plan=wishes(g=450)) == {}
    assert guarding.rules == ["dead-band"]
    assert guarding.does(believed(used=200, actual=600), plan=wishes(g=450)) == {"g": 497}
    assert guarding.does(believed(used=200, actual=497), plan=wishes(g=450)) == {"g": 450}


def test_with_long_ticks_more_must_be_at_stake() -> None:
    here = believed(used=200)
    assert Guarding().does(here, plan=wishes(g=440), interval_s=5.0) == {}
    assert Guarding().does(here, plan=wishes(g=440), interval_s=2.0) == {"g": 440}


def test_a_guest_that_grew_is_left_alone_for_half_a_minute() -> None:
    guarding = Guarding()
    assert guarding.does(believed(), plan=wishes(g=1000)) == {"g": 1000}
    grown = believed(actual=1000)
    assert guarding.does(grown, plan=wishes(g=500)) == {}
    assert guarding.rules == ["cool-down"]
    assert guarding.does(grown, plan=wishes(g=500), after_s=29) == {"g": 897}


def test_and_a_minute_after_pressure() -> None:
    guarding = Guarding()
    guarding.does(believed(actual=1000, pressure=True), plan=MemoryPlan())
    assert guarding.does(believed(actual=1000), plan=wishes(g=500), after_s=59) == {}
    assert guarding.does(believed(actual=1000), plan=wishes(g=500)) == {"g": 897}


def test_the_end_of_a_load_ends_the_waiting() -> None:
    guarding = Guarding()
    guarding.does(believed(pressure=True), plan=wishes(g=1000))
    ended = believed(actual=1000, load_ended=True)
    assert guarding.does(ended, plan=wishes(g=500)) == {"g": 897}


def test_the_base_is_the_balloon_and_not_the_target_under_way() -> None:
    moving = believed(used=200, actual=900, target=850)
    assert Guarding().does(moving, plan=wishes(g=400)) == {"g": 797}
    assert Guarding().does(moving._replace(target_kib=797 * MIB), plan=wishes(g=400)) == {}


# Somebody starves


def test_who_starves_makes_others_give_at_once_but_never_more_than_is_safe() -> None:
    guarding = Guarding()
    starving = believed("s", used=500, hard=1500)
    guarding.does(believed(actual=1000), starving, plan=wishes(g=1100, s=512), budget=4096)
    rich = believed(actual=1100)
    done = guarding.does(rich, starving, plan=wishes(g=400, s=1212), budget=1612)
    assert done == {"g": 700}, "half of 800 usable, without waiting after growth"


def test_who_grows_on_a_rich_host_does_not() -> None:
    guarding = Guarding()
    guarding.does(believed(actual=1000), plan=wishes(g=1100))
    grower = believed("s", used=500, hard=1500)
    done = guarding.does(believed(actual=1100), grower, plan=wishes(g=400, s=1500), budget=8192)
    assert done == {"s": 1500}


# Growing


def test_for_cache_alone_more_must_be_at_stake() -> None:
    """82 MiB are 4 % of 2048; to its soft need it grows by 32, and to its maximum by anything."""
    fed = believed(used=200, actual=600, soft=600)
    assert Guarding().does(fed, plan=wishes(g=680)) == {}
    assert Guarding().does(fed, plan=wishes(g=690)) == {"g": 690}
    wanting = believed(used=200, actual=600, soft=640)
    assert Guarding().does(wanting, plan=wishes(g=640)) == {"g": 640}
    nearly = believed(used=200, actual=2040, soft=600)
    assert Guarding().does(nearly, plan=wishes(g=2048)) == {"g": 2048}


def test_growth_comes_only_out_of_what_has_been_returned() -> None:
    giver, taker = believed("a", actual=1000, used=200), believed("b", used=500, hard=1000)
    guarding = Guarding()
    done = guarding.does(giver, taker, plan=wishes(a=400, b=1112), budget=1512)
    assert done == {"a": 600}
    assert "free" in guarding.rules
    on_its_way = giver._replace(target_kib=600 * MIB, actual_kib=800 * MIB)
    done = guarding.does(on_its_way, taker, plan=wishes(a=600, b=1112), budget=1512)
    assert done == {"b": 712}


def test_hard_needs_come_first_and_are_met_evenly() -> None:
    done = Guarding().does(
        believed("a", used=500, hard=900),
        believed("b", used=500, hard=700),
        believed("c", used=200, hard=300),
        plan=wishes(a=1500, b=1500, c=1500),
        budget=3 * 512 + 200,
    )
    assert done == {"a": 612, "b": 612}


def test_little_is_not_worth_giving_unless_it_is_needed_or_the_last() -> None:
    assert Guarding().does(believed(), plan=wishes(g=540)) == {}
    assert Guarding().does(believed(used=430), plan=wishes(g=540)) == {"g": 540}
    assert Guarding().does(believed(actual=2030, used=900), plan=wishes(g=2048)) == {"g": 2048}


def test_a_guest_being_shrunk_gets_back_what_it_still_has_even_when_nothing_is_free() -> None:
    turned = believed(used=500, actual=800, target=600, hard=800)
    assert Guarding().does(turned, plan=wishes(g=800), budget=100) == {"g": 800}


def test_a_balloon_on_its_way_down_is_turned_only_for_hard_need() -> None:
    coming_down = believed(used=300, actual=1500, target=512)
    assert Guarding().does(coming_down, plan=wishes(g=900)) == {}


# Bounds and nonsense


def test_sizes_are_brought_within_minimum_and_maximum() -> None:
    guarding = Guarding()
    done = guarding.does(
        believed("a", used=100, minimum=450),
        believed("b", actual=1900, maximum=2000, used=1500),
        plan=wishes(a=100, b=3000),
    )
    assert done == {"b": 2000}
    assert guarding.rules == ["bounds", "bounds", "dead-band"]
    assert str(guarding.verdict.amendments[0].reason) == (
        "a gets 450 MiB, not 100 MiB: its minimum"
    )


def test_a_guest_below_its_minimum_is_brought_up() -> None:
    assert Guarding().does(believed(used=50, actual=100), plan=wishes(g=0)) == {"g": 256}


@pytest.mark.parametrize("size", [-1, math.nan, 700.5, math.inf, "700", True, None])
def test_an_answer_that_makes_no_sense_is_refused(size: Any) -> None:
    plan = MemoryPlan((DesiredSize("g", size, Reason("bad", "because")),))
    guarding = Guarding()
    assert guarding.does(believed(), plan=plan) == {}
    assert guarding.rules == ["nonsense"]


def test_unknown_doubled_and_fixed_guests_are_refused() -> None:
    guarding = Guarding()
    twice = MemoryPlan((*wishes(g=1000).sizes, *wishes(g=300).sizes))
    assert guarding.does(believed(), plan=twice) == {"g": 1000}
    assert guarding.rules == ["nonsense"]
    assert guarding.does(believed(), plan=wishes(nobody=300)) == {}
    assert guarding.rules == ["nonsense"]
    assert guarding.does(believed(fixed="it is paused"), plan=wishes(g=1000)) == {}
    assert guarding.rules == ["fixed"]


# Held, new and stuck guests


def test_a_held_guest_is_not_shrunk_and_grows_only_as_it_must() -> None:
    guarding = Guarding(holds={"g": Hold(100.0, "changed by somebody else")})
    assert guarding.does(believed(actual=1000), plan=wishes(g=400)) == {}
    assert guarding.rules == ["hold"]
    assert guarding.does(believed(), plan=wishes(g=900)) == {}
    needy = believed(used=500)
    assert guarding.does(needy, plan=wishes(g=900)) == {"g": 600}
    assert guarding.does(needy, plan=wishes(g=900), after_s=100) == {"g": 900}


def test_a_new_guest_is_shrunk_only_when_the_host_is_in_need() -> None:
    new = believed(actual=1000, growable_only="it started less than 30 s ago")
    assert Guarding().does(new, plan=wishes(g=400)) == {}
    assert Guarding().does(new, plan=wishes(g=400), host=host(300)) == {"g": 650}


def test_a_stuck_guests_target_is_taken_back_to_where_it_is_once() -> None:
    stuck = believed(actual=700, target=500, stuck=True, fixed="it does not follow")
    assert Guarding().does(stuck, plan=MemoryPlan()) == {"g": 700}
    assert Guarding().does(stuck._replace(target_kib=700 * MIB), plan=MemoryPlan()) == {}


# The host's states


@pytest.mark.parametrize(
    ("memory", "granted"),
    [
        (host(1200), {"g": 1000}),
        (host(1100), {"g": 628}),
        (host(700), {"g": 600}),
        (host(8000, some=0.11), {"g": 600}),
        (host(400), {}),
        (host(8000, full=0.11), {}),
    ],
)
def test_a_host_in_need_gives_less(memory: HostMemory, granted: dict[str, int]) -> None:
    here = believed(used=500)
    assert Guarding().does(here, plan=wishes(g=1000), host=memory) == granted


def test_growth_never_turns_the_host_red_whatever_the_budget_says() -> None:
    # Red begins at half of the reserve of 819 MiB.
    here = believed(used=500, hard=2000)
    done = Guarding().does(here, plan=wishes(g=2000), host=host(1200), budget=9999)
    assert done == {"g": 512 + 1200 - 409 - 1}


def test_a_host_in_need_takes_back_what_is_not_needed() -> None:
    rich = believed(used=300, actual=1000, soft=700)
    assert Guarding().does(rich, plan=wishes(g=1000), host=host(1100)) == {}
    assert Guarding().does(rich, plan=wishes(g=1000), host=host(700)) == {"g": 897}
    assert Guarding().does(rich, plan=wishes(g=1000), host=host(400)) == {"g": 650}


def test_a_state_is_left_only_when_things_are_clearly_better_for_a_while() -> None:
    guarding = Guarding()
    here = believed(used=500)
    assert guarding.does(here, plan=wishes(g=1500), host=host(400)) == {}
    # Above the limit of red, 409 MiB, but not 1.25 times above.
    assert guarding.does(here, plan=wishes(g=1500), host=host(500)) == {}
    better = host(8000)
    assert guarding.does(here, plan=wishes(g=1500), host=better) == {}
    assert guarding.does(here, plan=wishes(g=1500), host=better, after_s=9) == {}
    assert guarding.does(here, plan=wishes(g=1500), host=better) == {"g": 1500}


# Overload


def overloaded(poor_swaps_in_kib_s: float = 0.0, **rich: Any) -> dict[str, int]:
    """Two guests that need 2000 each of 1500; the first has more than the second."""
    above = believed(used=905, actual=980, hard=2000, **rich)
    below = believed("p", used=500, actual=520, hard=2000, swap_in_kib_s=poor_swaps_in_kib_s)
    return Guarding().does(above, below, plan=wishes(g=750, p=750), budget=1500)


def test_a_guest_with_swap_is_squeezed_a_little_in_overload() -> None:
    assert overloaded() == {}
    assert overloaded(swaps=True) == {"g": 948}


def test_a_guest_that_has_less_than_is_safe_is_refused_for_that_reason() -> None:
    guarding = Guarding()
    assert guarding.does(believed(used=450, actual=500), plan=wishes(g=300)) == {}
    (note,) = guarding.verdict.amendments
    assert (note.reason.rule, note.reason.figures["why"]) == (
        "safe",
        "it uses 450 MiB, less than 550 MiB is not safe",
    )


def test_a_host_in_need_takes_from_guests_with_swap_what_others_cannot_give() -> None:
    """Without swap 900 in use stay 1000; so of 1500 the other keeps 500 and not 750."""
    fast = believed("a", used=900, actual=1000, hard=1000)
    slow = believed("b", used=730, actual=750, hard=1000, swaps=True)
    plan = wishes(a=750, b=750)
    assert Guarding().does(fast, slow, plan=plan, budget=1500, host=host(400)) == {"b": 730}
    assert Guarding().does(fast, slow, plan=plan, budget=1500) == {}, "the host is not in need"
    enough = Guarding()
    assert enough.does(fast, slow, plan=plan, budget=1750, host=host(400)) == {}


def test_but_not_while_it_swaps_in_faster_than_the_poorest() -> None:
    assert overloaded(swaps=True, swap_in_kib_s=10.0) == {}
    assert overloaded(swaps=True, swap_in_kib_s=10.0, poor_swaps_in_kib_s=20.0) == {"g": 948}


def test_nor_by_more_than_is_usable() -> None:
    assert overloaded(swaps=True, usable_kib=12 * MIB) == {"g": 968}
    assert overloaded(swaps=True, usable_kib=0) == {}


# Whatever the policy says


MIBS = st.integers(0, 4096)


@st.composite
def hosts(draw: st.DrawFn) -> MemoryEstimate:
    guests = []
    for i in range(draw(st.integers(1, 6))):
        maximum = draw(st.integers(256, 4096))
        actual = draw(st.integers(64, maximum))
        used = draw(st.integers(0, actual))
        hard = draw(st.integers(min(used, maximum), maximum))
        guests.append(
            believed(
                f"g{i}",
                used=used,
                actual=actual,
                target=draw(st.integers(64, maximum)),
                maximum=maximum,
                minimum=draw(st.integers(0, min(maximum, 300))),
                hard=hard,
                soft=draw(st.integers(hard, maximum)),
                swaps=draw(st.booleans()),
                pressure=draw(st.booleans()),
                load_ended=draw(st.booleans()),
                growable_only=draw(st.sampled_from([None, None, "it is new"])),
                fixed=draw(st.sampled_from([None, None, None, "it is paused"])),
                weight=draw(st.sampled_from([0.5, 1.0, 3.0])),
            )
        )
    available = host(draw(st.integers(0, 16384)), draw(st.sampled_from([0.0, 0.0, 0.2])))
    return whole(*guests, budget=draw(st.integers(-500, 12000)), host=available)


@st.composite
def runs(draw: st.DrawFn) -> list[tuple[MemoryEstimate, MemoryPlan, float]]:
    steps = []
    for _ in range(draw(st.integers(1, 3))):
        estimate = draw(hosts())
        names = st.sampled_from([guest.uuid for guest in estimate.guests])
        sizes = draw(st.dictionaries(names, MIBS))
        steps.append((estimate, wishes(**sizes), draw(st.sampled_from([1.0, 40.0]))))
    return steps


@given(runs(), st.sampled_from([None, "g0"]))
def test_safety_holds_whatever_the_policy_says(
    run: list[tuple[MemoryEstimate, MemoryPlan, float]], held: str | None
) -> None:
    guarding = Guarding(holds={held: Hold(1e9, "held")} if held else {})
    for estimate, plan, after_s in run:
        guarding.does_on(estimate, plan, after_s)
        check_safety(estimate, guarding, held)


def check_safety(estimate: MemoryEstimate, guarding: Guarding, held: str | None) -> None:
    guests = {guest.uuid: guest for guest in estimate.guests}
    targets = {guest.uuid: guest.target_kib for guest in estimate.guests}
    for resize in guarding.verdict.actions:
        assert isinstance(resize, Resize)
        guest = guests[resize.uuid]
        targets[guest.uuid] = resize.target_kib
        assert guest.fixed is None
        assert resize.target_kib <= guest.maximum_kib
        assert resize.target_kib >= min(guest.minimum_kib, guest.target_kib)
        assert resize.target_kib != guest.target_kib
        taken = guest.actual_kib - resize.target_kib
        if resize.target_kib < guest.target_kib:
            assert guest.uuid != held
            assert taken <= guest.usable_kib
            assert taken <= 0 or guest.swaps or guest.usable_kib > 100 * MIB
    before = estimate.committed_kib
    after = sum(max(g.actual_kib, targets[g.uuid]) for g in estimate.resizable)
    assert after <= max(before, estimate.budget_kib)
