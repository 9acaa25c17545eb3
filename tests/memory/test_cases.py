"""The memory cases of acceptance.md, with its limits; the drive's watchdog checks every tick."""

import pytest

from tests.memory.cases import LARGE, SMALL, Size, actual_mib, drive, state_of
from tests.memory.drive import Drive
from virtbalance.simulation.want import Consumer

SIZES = pytest.mark.parametrize("size", [LARGE, SMALL], ids=["large", "small"])
PERIODS = pytest.mark.parametrize("period_s", [1.0, 2.0, 5.0])
RATES = pytest.mark.parametrize("rate_mib_s", [4.0, 16.0, 20.0])


def consumed(done: Drive, name: str) -> bool:
    return state_of(done, name) not in (Consumer.WAITING, Consumer.TAKING)


def check_nobody_suffered(done: Drive) -> None:
    for look in done.looks:
        assert min(look.usable_mib.values()) >= 40
        assert look.available_mib > 200
    for truth in done.host.truth().memory.values():
        assert truth.out_of_memory_s == 0
        assert truth.kills == 0


def check_nobody_below(done: Drive, least_mib: float) -> None:
    assert all(min(look.actual_mib.values()) >= least_mib for look in done.looks)


def check_back_in_time(done: Drive, name: str, size: Size) -> None:
    limit_s = max(80.0, 30.0 + 20.0 * done.period_s)
    done.run_until(lambda: actual_mib(done, name) <= size.back_mib, limit_s)


@SIZES
@PERIODS
@RATES
@pytest.mark.parametrize("phase_s", [0.0, 0.7])
def test_m1_one_consumer_reaches_its_maximum_and_gives_it_back(
    size: Size, period_s: float, rate_mib_s: float, phase_s: float
) -> None:
    m1 = drive(
        size,
        (0, None, None, None),
        period_s=period_s,
        rate_mib_s=rate_mib_s,
        start_s=20.0 + phase_s * period_s,
    )
    m1.run_until(lambda: consumed(m1, "g0"), 700.0)
    assert state_of(m1, "g0") is Consumer.LIMIT
    check_back_in_time(m1, "g0", size)
    check_nobody_suffered(m1)
    check_nobody_below(m1, min(200, size.minimum_mib))


@SIZES
@PERIODS
def test_m2_all_consume_and_all_reach_their_maximum(size: Size, period_s: float) -> None:
    m2 = drive(size, (0, 0, 0, 0), period_s=period_s)
    m2.run_until(lambda: all(consumed(m2, f"g{i}") for i in range(4)), 400.0)
    assert {state_of(m2, f"g{i}") for i in range(4)} == {Consumer.LIMIT}
    for i in range(4):
        check_back_in_time(m2, f"g{i}", size)
    check_nobody_suffered(m2)


@pytest.mark.parametrize(
    ("size", "budget_max_mib"), [(LARGE, 6144), (SMALL, 2048)], ids=["large", "small"]
)
@PERIODS
def test_m2_all_stop_together_at_the_budget(
    size: Size, budget_max_mib: int, period_s: float
) -> None:
    m2 = drive(size, (0, 0, 0, 0), period_s=period_s, budget_max_mib=budget_max_mib)
    m2.run_until(lambda: any(consumed(m2, f"g{i}") for i in range(4)), 400.0)
    # The last look before the first consumer gave up: everybody has its quarter of the budget.
    peak = max(m2.looks, key=lambda look: sum(look.actual_mib.values()))
    sizes = peak.actual_mib.values()
    assert max(sizes) <= min(sizes) * 1.1
    assert sum(sizes) <= budget_max_mib
    assert sum(sizes) >= 0.97 * budget_max_mib
    m2.run(60.0)
    for i in range(4):
        check_back_in_time(m2, f"g{i}", size)
    check_nobody_below(m2, min(200, size.minimum_mib))


@SIZES
@PERIODS
@pytest.mark.parametrize("host", ["plenty", "scarce"])
def test_m3_memory_moves_from_those_that_stop_to_those_that_go_on(
    size: Size, period_s: float, host: str
) -> None:
    m3 = drive(
        size,
        (size.stop_mib, size.stop_mib, 0, 0),
        period_s=period_s,
        rate_mib_s=16.0,
        host_mib=7168 if host == "scarce" and size is LARGE else None,
        budget_max_mib=2176 if host == "scarce" and size is SMALL else None,
    )
    m3.run_until(lambda: all(consumed(m3, f"g{i}") for i in range(4)), 400.0)
    assert [state_of(m3, f"g{i}") for i in range(4)] == [
        Consumer.STOPPED,
        Consumer.STOPPED,
        Consumer.LIMIT,
        Consumer.LIMIT,
    ]
    for i in range(4):
        check_back_in_time(m3, f"g{i}", size)
    check_nobody_below(m3, min(200, size.minimum_mib))


@SIZES
@PERIODS
def test_m4_one_stops_one_goes_to_its_limit_two_idle(size: Size, period_s: float) -> None:
    m4 = drive(size, (size.stop_mib, 0, None, None), period_s=period_s, rate_mib_s=20.0)
    m4.run_until(lambda: consumed(m4, "g1"), 400.0)
    assert state_of(m4, "g0") is Consumer.STOPPED
    assert state_of(m4, "g1") is Consumer.LIMIT
    check_back_in_time(m4, "g1", size)
    check_nobody_suffered(m4)


@PERIODS
@pytest.mark.parametrize(
    ("takes_mib", "host_mib"),
    [
        ((0, None, None, None), 16384),
        ((0, 0, 0, 0), 16384),
        ((512, 512, 0, 0), 16384),
        ((512, 0, None, None), 16384),
        ((0, None, None, None), 6144),
        ((512, 0, None, None), 6144),
    ],
)
def test_an_outside_reset_of_everybody_is_accepted_and_then_fed(
    takes_mib: tuple[int | None, ...], host_mib: int, period_s: float
) -> None:
    reset = drive(LARGE, takes_mib, period_s=period_s, rate_mib_s=16.0, host_mib=host_mib)

    def set_back() -> None:
        for uuid in reset.host.guests:
            reset.host.resize(uuid, 512 * 1024)

    reset.host.at(24.0, set_back)
    reset.run_until(lambda: consumed(reset, "g0"), 400.0)
    for i, takes in enumerate(takes_mib):
        if takes == 0:
            reset.run_until(lambda i=i: consumed(reset, f"g{i}"), 400.0)  # type: ignore[misc]
            assert state_of(reset, f"g{i}") is Consumer.LIMIT
    conflicts = [c for look in reset.looks for c in look.changes if not c.continued]
    assert len({c.uuid for c in conflicts}) == len(conflicts), "one reset is one conflict"
