"""From a scenario to a simulated host: what the owner says, and what the seed moves."""

from virtbalance.bench.building import build
from virtbalance.bench.library import find
from virtbalance.simulation.want import MIB


def test_that_a_guest_has_swap_is_told_only_where_the_scenario_says_so() -> None:
    told = build(find(["s3"])[0], 0).host.guests.values()
    assert [guest.described.settings.swap for guest in told] == [True] * 4
    quiet = build(find(["s4"])[0], 0).host.guests.values()
    assert [guest.described.settings.swap for guest in quiet] == [None] * 4


def test_a_seed_shifts_steps_by_four_seconds_at_most_and_the_first_one_not_at_all() -> None:
    scenario = find(["s4"])[0]  # 700 MiB, from 60 s on 7500

    def wants_mib(seed: int, at_s: float) -> list[float]:
        memories = (guest.described.memory for guest in build(scenario, seed).host.guests.values())
        return [memory.want.kib(at_s) / MIB for memory in memories if memory]

    assert wants_mib(0, 60.0) == [7500] * 4
    assert wants_mib(1, 59.9) == wants_mib(1, 0.0) == [700] * 4
    assert wants_mib(1, 64.0) == [7500] * 4
    assert wants_mib(1, 62.0) != wants_mib(2, 62.0)
