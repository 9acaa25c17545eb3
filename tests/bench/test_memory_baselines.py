"""The memory baselines against examples worked by hand. All sizes in MiB."""

from dataclasses import replace

import pytest

from tests.bench.estimates import MIB, guest, memory, sizes
from virtbalance.bench.baselines.memory import MEMORY_BASELINES
from virtbalance.bench.baselines.memory.local import Local
from virtbalance.bench.baselines.memory.mom import Mom
from virtbalance.bench.baselines.memory.none import FullBalloons
from virtbalance.bench.baselines.memory.pi import Pi, PiState
from virtbalance.bench.baselines.memory.proxmox import Proxmox
from virtbalance.bench.baselines.memory.qmemman import Qmemman
from virtbalance.bench.baselines.memory.sizes import unallocated_kib
from virtbalance.bench.baselines.memory.squeezed import Squeezed
from virtbalance.bench.baselines.memory.threshold import Threshold, ThresholdFixed
from virtbalance.memory.policy import MemoryPolicy
from virtbalance.model.memory_estimate import MemoryEstimate


def once(policy: MemoryPolicy, estimate: MemoryEstimate) -> dict[str, float]:
    plan, _ = policy.decide(None, estimate, None, 100.0)
    return sizes(plan)


def test_they_are_found_under_their_names() -> None:
    assert sorted(MEMORY_BASELINES) == [
        "local",
        "mom",
        "none",
        "pi",
        "proxmox",
        "qmemman",
        "squeezed",
        "threshold",
        "threshold-fixed",
    ]


@pytest.mark.parametrize("policy", MEMORY_BASELINES.values(), ids=MEMORY_BASELINES.keys())
def test_without_guests_they_do_nothing(policy: type[MemoryPolicy]) -> None:
    plan, _ = policy().decide(None, memory(), None, 0.0)
    assert plan.sizes == ()


def test_none_opens_every_balloon() -> None:
    assert once(FullBalloons(), memory(guest("a", 1024, 100), guest("b", 4096, 9))) == {"a": 4096}


# threshold


def test_threshold_shrinks_the_starving_guest() -> None:
    """W = 600, S = 100: the rich one is set to 300, the starving one of 1000 to 400."""
    estimate = memory(guest("a", 1000, 100), guest("b", 2000, 600), guest("c", 900, 200))
    assert once(Threshold(), estimate) == {"b": 300, "a": 400}


def test_threshold_gives_or_takes_300_where_there_is_only_one_side() -> None:
    starved = memory(guest("a", 1000, 100), guest("b", 1000, 299))
    assert once(Threshold(), starved) == {"a": 400}
    wasteful = memory(guest("a", 1000, 151), guest("b", 1000, 400))
    assert once(Threshold(), wasteful) == {"b": 100}
    neither = memory(guest("a", 1000, 151), guest("b", 1000, 299))
    assert once(Threshold(), neither) == {}


def test_threshold_fixed_counts_from_the_balloon_within_limits() -> None:
    estimate = memory(guest("a", 1000, 100), guest("b", 2000, 600))
    assert once(ThresholdFixed(), estimate) == {"b": 1700, "a": 1300}
    limited = memory(guest("a", 4000, 100), guest("b", 700, 600))
    assert once(ThresholdFixed(), limited) == {"b": 512, "a": 4096}


# mom


def test_mom_shrinks_everybody_while_the_host_is_short() -> None:
    """hf = 0.10. a keeps max(0.95 x 2000, 1000 + 200) = 1900; b max(1900, 1950 + 200) stays."""
    estimate = memory(guest("a", 2000, 1000), guest("b", 2000, 50), total=10000, free=1000)
    assert once(Mom(), estimate) == {"a": 1900}


def test_mom_wants_less_than_nothing_free_when_the_host_is_very_short() -> None:
    """hf = 0.03, gf = -0.02: 1900 used of 2000 may fall to max(1900, 1860) = 1900."""
    estimate = memory(guest("a", 2000, 100), total=10000, free=300)
    assert once(Mom(), estimate) == {"a": 1900}


def test_mom_grows_everybody_while_it_is_not() -> None:
    """a: max(1.05 x 1000, 500 + 200) = 1050; b: 950 + 200 = 1150; c is cut at its maximum."""
    estimate = memory(
        guest("a", 1000, 500), guest("b", 1000, 50), guest("c", 4000, 10), total=10000, free=2000
    )
    assert once(Mom(), estimate) == {"a": 1050, "b": 1150, "c": 4096}


def test_mom_drops_tiny_changes() -> None:
    assert once(Mom(), memory(guest("a", 4090, 10), total=10000, free=5000)) == {}


def test_mom_acts_every_ten_seconds_on_averages() -> None:
    """Samples at 0, 5 and 10 s of 600, 300 and 0 unused: 300 on average at 10 s."""
    policy, state, made = Mom(), None, []
    for now_s, unused in [(0, 600), (2, 999), (5, 300), (10, 0)]:
        estimate = memory(guest("a", 1000, unused), total=10000, free=5000)
        plan, state = policy.decide(state, estimate, None, float(now_s))
        made.append(sizes(plan))
    # At 10 s: max(1050, (1000 - 300) + 200).
    assert made == [{"a": 1050}, {}, {}, {"a": 1050}]
    for now_s in range(15, 60, 5):
        estimate = memory(guest("a", 1000, 0), total=10000, free=5000)
        plan, state = policy.decide(state, estimate, None, float(now_s))
    # By 55 s the last ten samples are 300 once and 0 nine times.
    plan, state = policy.decide(state, estimate, None, 60.0)
    assert sizes(plan) == {"a": 1200}


# proxmox


def test_proxmox_rests_near_its_goal() -> None:
    """80 % of 10000 are 8000, 7995 are used."""
    assert once(Proxmox(), memory(guest("a", 2000, 900), total=10000, free=2005)) == {}


def test_proxmox_gives_to_the_poor_first() -> None:
    """500 to give; poor are b and c; each is due 250 and gets the step of 100."""
    estimate = memory(
        guest("a", 2000, 900), guest("b", 1500, 50), guest("c", 1500, 50), total=10000, free=2500
    )
    assert once(Proxmox(), estimate) == {"b": 1600, "c": 1600}


def test_proxmox_does_not_take_while_it_gives() -> None:
    """Each is due 2000: b has that already, and what it does not want goes to nobody."""
    estimate = memory(guest("b", 2000, 50), guest("c", 1500, 50), total=10000, free=2500)
    assert once(Proxmox(), estimate) == {"c": 1600}


def test_proxmox_takes_from_the_rich_first() -> None:
    """60 to take from a and b: surplus 988 + 488 - 60 = 1416, 708 each: a gives 60 and no more."""
    estimate = memory(
        guest("a", 1500, 900), guest("b", 1000, 400), guest("c", 1500, 50), total=10000, free=1940
    )
    assert once(Proxmox(), estimate) == {"a": 1440}


def test_proxmox_takes_from_all_where_nobody_is_rich() -> None:
    estimate = memory(guest("a", 2000, 50), guest("b", 1000, 50), total=10000, free=1500)
    assert once(Proxmox(), estimate) == {"a": 1900}


def test_proxmox_divides_by_shares() -> None:
    """90 to give, surplus 90 above equal minima: weights 2 and 1 get 60 and 30."""
    poor = [guest("a", 512, 10, weight=2.0), guest("b", 512, 10)]
    assert once(Proxmox(), memory(*poor, total=10000, free=2090)) == {"a": 572, "b": 542}


def test_proxmox_acts_every_ten_seconds() -> None:
    estimate = memory(guest("a", 512, 10), total=10000, free=2500)
    plan, state = Proxmox().decide(None, estimate, None, 0.0)
    assert plan.sizes
    plan, state = Proxmox().decide(state, estimate, None, 9.0)
    assert not plan.sizes
    plan, _ = Proxmox().decide(state, estimate, None, 10.0)
    assert plan.sizes


# squeezed


def test_squeezed_gives_all_the_same_fraction() -> None:
    """Surplus 1819 + (1000 - 500) + (500 - 500) - 819 = 1500 of a span of 3000: half."""
    estimate = memory(
        guest("a", 1000, 9, maximum=1500, minimum=500),
        guest("b", 500, 9, maximum=2500, minimum=500),
        free=1819,
    )
    assert once(Squeezed(), estimate) == {"b": 1500}


def test_squeezed_lets_givers_give_first() -> None:
    """Surplus 819 + 2000 + 0 - 819 of a span of 4000: half. a must fall to 1500 before b grows."""
    before = memory(
        guest("a", 2500, 9, maximum=2500, minimum=500),
        guest("b", 500, 9, maximum=2500, minimum=500),
        free=819,
    )
    plan, state = Squeezed().decide(None, before, None, 0.0)
    assert sizes(plan) == {"a": 1500}
    half_way = memory(
        guest("a", 2000, 9, maximum=2500, minimum=500),
        guest("b", 500, 9, maximum=2500, minimum=500),
        free=1319,
    )
    plan, state = Squeezed().decide(state, half_way, None, 1.0)
    assert sizes(plan) == {"a": 1500}
    given = memory(
        guest("a", 1500, 9, maximum=2500, minimum=500),
        guest("b", 500, 9, maximum=2500, minimum=500),
        free=1819,
    )
    plan, state = Squeezed().decide(state, given, None, 2.0)
    assert sizes(plan) == {"b": 1500}
    plan, state = Squeezed().decide(state, given, None, 3.0)
    assert sizes(plan) == {}


def test_squeezed_does_without_a_giver_that_does_not_move() -> None:
    """b has given what it had; a stays at 2500, so after 5 s c gets what there is without it."""
    estimate = memory(
        guest("a", 2500, 9, maximum=2500, minimum=500),
        guest("c", 500, 9, maximum=2500, minimum=500),
        free=1219,
    )
    policy, state, made = Squeezed(), None, []
    for now_s in range(7):
        plan, state = policy.decide(state, estimate, None, float(now_s))
        made.append(sizes(plan))
    assert made[:6] == [{"a": 1700}] * 6
    # Surplus 1219 - 819 = 400 of c's span of 2000: a fifth.
    assert made[6] == {"c": 900}


def test_xen_rules_do_not_take_untouched_memory_for_free() -> None:
    """Balloons of 6000 in 4000 that are not touched yet: 3000 are available, -2500 are free."""
    full = [guest(name, 3000, 2900, maximum=3000) for name in "ab"]
    estimate = replace(memory(*full, total=4000, free=3000), other_kib=500 * MIB)
    assert unallocated_kib(estimate) == -2500 * MIB
    # Surplus -2500 + 2 x 2488 - 819 = 1657 of a span of 4976: a third of it, 828, above 512.
    assert once(Squeezed(), estimate) == {"a": 1340.5, "b": 1340.5}


# qmemman


def test_qmemman_spreads_the_host_by_preference() -> None:
    """Prefs 1300 and 650, spare 2000 - 50, lack 300 + 150: 1500 to spread 2 to 1, times 0.999."""
    estimate = memory(guest("a", 1000, 0, used=1000), guest("b", 500, 0, used=500), free=2000)
    assert once(Qmemman(), estimate) == {"a": 2297.7, "b": 1148.8}


def test_qmemman_spreads_again_what_a_maximum_cuts_off() -> None:
    """a stops at 1400: 100 above its pref of 1300, and b gets the other 1400: 0.999 x 2050."""
    estimate = memory(
        guest("a", 1000, 0, used=1000, maximum=1400), guest("b", 500, 0, used=500), free=2000
    )
    assert once(Qmemman(), estimate) == {"a": 1400, "b": pytest.approx(2048.0, abs=0.2)}


def test_qmemman_levels_in_shortage_and_lets_givers_give_first() -> None:
    """Free is 0: a gives down to its pref of 650; b's growth waits for that."""
    estimate = memory(guest("a", 2000, 0, used=500), guest("b", 2000, 0, used=3000), free=0)
    assert once(Qmemman(), estimate) == {"a": 650}


def test_qmemman_feeds_the_needy_from_what_is_free() -> None:
    """100 free, 50 spare: b below its pref of 3900 gets them."""
    estimate = memory(guest("b", 2000, 0, used=3000), free=100)
    assert once(Qmemman(), estimate) == {"b": 2050}


def test_qmemman_leaves_small_differences_alone() -> None:
    """It would spread 100 in all: less than 150, and a is above its pref."""
    estimate = memory(guest("a", 1300, 0, used=1000), free=150)
    assert once(Qmemman(), estimate) == {}


# pi


def test_pi_shrinks_by_the_hosts_lack() -> None:
    """e = 0.10; 0.5 x 0.10 + 0.05 x 0.5 = 0.075 of 4096: 307 less."""
    estimate = memory(guest("a", 2000, 900), total=10000, free=1001)
    assert once(Pi(), estimate) == {"a": pytest.approx(1692.8, abs=0.5)}


def test_pi_stops_at_what_is_used_until_the_host_is_full() -> None:
    estimate = memory(guest("a", 2000, 0, used=1850), total=10000, free=1001)
    assert once(Pi(), estimate) == {"a": 1850}
    full = memory(guest("a", 2000, 0, used=1850), total=10000, free=999)
    assert once(Pi(), full) == {"a": pytest.approx(1692.6, abs=0.5)}


def test_pi_grows_while_the_host_is_rich_and_leaves_small_steps() -> None:
    """e = -0.30: 0.15 + 0.05 x 1 (the limit) of 4096 is 819 more; e = -0.04 is 123: left."""
    assert once(Pi(), memory(guest("a", 2000, 0), total=10000, free=5000)) == {
        "a": pytest.approx(2819.2, abs=0.5)
    }
    assert once(Pi(), memory(guest("a", 2000, 0), total=10000, free=2400)) == {}


def test_pi_holds_its_integral_within_one() -> None:
    estimate = memory(guest("a", 2000, 900), total=10000, free=0)
    _, state = Pi().decide(PiState(0.9, 0.0), estimate, None, 5.0)
    assert state.integral == 1.0


# local


def test_local_steps_towards_256_usable() -> None:
    estimate = memory(
        guest("a", 1000, 0, usable=200),
        guest("b", 1000, 0, usable=270),
        guest("c", 1000, 0, usable=400),
        guest("d", 520, 0, usable=400),
    )
    assert once(Local(), estimate) == {"c": 968, "d": 512, "a": 1032}


def test_plans_name_givers_first_and_only_changes() -> None:
    estimate = memory(
        guest("a", 1000, 0, usable=100)._replace(target_kib=1032 * MIB),
        guest("b", 1000, 0, usable=100),
        guest("c", 1000, 0, usable=900),
    )
    plan, _ = Local().decide(None, estimate, None, 0.0)
    assert [size.uuid for size in plan.sizes] == ["c", "b"]
