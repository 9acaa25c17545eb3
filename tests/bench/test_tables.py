"""Tables of results: who is best, and by how much the oracle is better."""

from virtbalance.bench.results import Result
from virtbalance.bench.tables import number_text, standings


def result(policy: str, seed: int, shortfall: float) -> Result:
    return Result("s", "sim", policy, seed, None, {"shortfall_percent": shortfall}, "cpu")


def test_regret_is_what_the_oracle_lacks_less_under_the_same_seed() -> None:
    results = [
        *(result("oracle", seed, short) for seed, short in enumerate((2.0, 4.0, 3.0))),
        *(result("lpt", seed, short) for seed, short in enumerate((5.0, 6.0, 3.5))),
        result("lpt", 3, 90.0),  # the oracle did not meet this seed
    ]
    (standing,) = standings(results)
    assert [metric.name for metric in standing.metrics] == ["shortfall_percent", "regret_points"]
    regret = {row.policy: row.cells[1].summary for row in standing.rows}
    assert regret["lpt"] is not None
    assert (regret["lpt"].median, regret["lpt"].count) == (2.0, 3)
    assert regret["oracle"] is not None
    assert regret["oracle"].median == 0.0


def test_without_the_oracle_there_is_no_column_for_it() -> None:
    (standing,) = standings([result("lpt", 0, 5.0)])
    assert [metric.name for metric in standing.metrics] == ["shortfall_percent"]


def test_figures_have_as_many_digits_as_are_worth_reading() -> None:
    texts = [number_text(value) for value in (3.0, 0.12345, -0.00001, 12.345, 1e7)]
    assert texts == ["3", "0.123", "0.000", "12.3", "10000000.0"]
