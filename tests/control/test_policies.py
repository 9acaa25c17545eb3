"""Policies are found by name or as FILE.py:CLASS, and their mistakes are named."""

from pathlib import Path

import pytest

from virtbalance.control.policies import (
    PolicyError,
    describe_failure,
    load_policy_class,
    make_policy,
    policy_names,
)
from virtbalance.model.guest import RoleName

GOOD = """
from virtbalance.model.plan import CpuPlan

class Mine:
    name = "mine"
    def decide(self, state, estimate, config, now_s):
        return CpuPlan(), state
"""


def test_the_installed_ones_are_found_by_name() -> None:
    assert {"balance", "hold"} <= set(policy_names(RoleName.CPU))
    assert {"fair", "hold"} <= set(policy_names(RoleName.MEMORY))
    assert load_policy_class(RoleName.CPU, "hold").name == "hold"


def test_a_users_file_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(GOOD)
    policy = make_policy(load_policy_class(RoleName.CPU, f"{tmp_path}/mine.py:Mine"))
    assert policy.name == "mine"


@pytest.mark.parametrize(
    ("content", "reference", "message"),
    [
        ("", "mine.py:Mine", "no class Mine"),
        ("x = = 1", "mine.py:Mine", r"mine\.py:1: SyntaxError"),
        ("import nothing_like_it", "mine.py:Mine", r"mine\.py:1: ModuleNotFoundError"),
        ("class Mine: name = 'm'", "mine.py:Mine", "no method 'decide'"),
        ("class Mine:\n def decide(self): ...", "mine.py:Mine", "no 'name'"),
        ("", "other.py:Mine", "no such file"),
    ],
)
def test_a_bad_file_is_named_with_its_mistake(
    tmp_path: Path, content: str, reference: str, message: str
) -> None:
    (tmp_path / "mine.py").write_text(content)
    with pytest.raises(PolicyError, match=message):
        load_policy_class(RoleName.CPU, f"{tmp_path}/{reference}")


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(PolicyError, match=r"no cpu policy 'best'; there are: .*balance"):
        load_policy_class(RoleName.CPU, "best")


def test_a_failure_names_the_policys_own_line(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(GOOD.replace("return CpuPlan(), state", "return 1 / 0"))
    policy = make_policy(load_policy_class(RoleName.CPU, f"{tmp_path}/mine.py:Mine"))
    with pytest.raises(ZeroDivisionError) as caught:
        policy.decide(None, None, None, 0.0)
    assert describe_failure(caught.value) == (
        f"{tmp_path}/mine.py:7: ZeroDivisionError: division by zero"
    )
