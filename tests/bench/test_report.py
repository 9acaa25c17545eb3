"""The page: who is shown in which place, who counts as best, and how large pictures are."""

import re
from pathlib import Path

import numpy as np

from virtbalance.bench.figures import figures_of
from virtbalance.bench.report import write_report
from virtbalance.bench.results import Job, Result, write
from virtbalance.bench.schema import GuestTable, Scenario
from virtbalance.model.guest import RoleName


def keep(directory: Path, policy: str, scenario: str = "s", **metrics: float | None) -> None:
    described = Scenario(scenario, "a case", RoleName.CPU, 10.0, 1.0, guests=(GuestTable("g"),))
    manifest = {"format": 1, "version": "0"}
    result = Result(scenario, "sim", policy, 0, True, metrics, "cpu", "a case", manifest=manifest)
    write(directory, Job(described, policy, 0), result, None)


def rows(page: str, table: int) -> list[list[str]]:
    body = page.split("<tbody>")[table + 1].split("</tbody>", maxsplit=1)[0]
    return [
        [re.sub("<[^>]*>", "", cell) for cell in re.split("<td[^>]*>", row)[1:]]
        for row in body.split("<tr>")[1:]
    ]


def test_a_users_own_policy_comes_first_and_then_ours(tmp_path: Path) -> None:
    for policy in ("lpt", "balance", "greedy", "/home/me/mine.py:Mine"):
        keep(tmp_path, policy, shortfall_percent=3.0)
    page = write_report(tmp_path).read_text()
    names = [row[0] for row in rows(page, 1)]
    assert names == ["/home/me/mine.py:Mine", "balance", "lpt", "greedy"]


def test_who_never_gets_there_in_one_scenario_has_no_mean(tmp_path: Path) -> None:
    for scenario, balance_s, hold_s in (("one", 2.0, None), ("two", 4.0, 0.0)):
        keep(tmp_path, "balance", scenario, time_to_balance_s=balance_s)
        keep(tmp_path, "hold", scenario, time_to_balance_s=hold_s)
    page = write_report(tmp_path).read_text()
    header = page.split("<thead>")[1].split("</thead>")[0]
    at = re.findall("<th>([^<]*)", header).index("time to balance")
    assert {row[0]: row[at] for row in rows(page, 0)} == {"balance": "3", "hold": "–"}


def test_contenders_are_drawn_side_by_side_where_they_differ(tmp_path: Path) -> None:
    keep(tmp_path, "balance", shortfall_percent=3.0, pin_changes=2.0)
    keep(tmp_path, "/home/me/mine.py:Mine", shortfall_percent=9.0, pin_changes=2.0)
    page = write_report(tmp_path).read_text()
    (picture,) = re.findall("<svg.*?</svg>", page, re.DOTALL)
    assert ">mine.py:Mine<" in picture
    assert ">shortfall, %<" in picture
    assert "pin changes" not in picture
    assert (tmp_path / "figures" / "s-side-by-side.png").is_file()


def test_of_many_guests_those_are_drawn_whose_balloons_move() -> None:
    sizes = np.full((10, 40), 1000.0)
    sizes[5:, 28:] = 500.0
    figure = figures_of(
        {
            "role": "memory",
            "duration_s": 10.0,
            "times_s": list(range(10)),
            "events": [],
            "guests": [f"g{number}" for number in range(40)],
            "host_mib": 65536.0,
            "other_mib": [1024.0] * 10,
            **{f"{key}_mib": sizes.tolist() for key in ("used", "actual", "target", "want")},
            "performance": [1.0] * 10,
            "fairness": [1.0] * 10,
        }
    )["guests"]
    assert [axis.get_ylabel() for axis in figure.axes] == [f"g{number}" for number in range(28, 40)]
