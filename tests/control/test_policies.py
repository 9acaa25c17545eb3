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
from virtbalance.control.policy_seat import PolicySeat
from virtbalance.model.guest import RoleName
from virtbalance.model.plan import CpuPlan

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
        ("import sys\nsys.exit(5)", "mine.py:Mine", r"mine\.py:2: SystemExit: 5"),
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


def test_a_constructor_that_ends_the_program_is_a_mistake(tmp_path: Path) -> None:
    content = GOOD.replace('name = "mine"', 'name = "mine"\n    def __init__(self): exit(3)')
    (tmp_path / "mine.py").write_text(content)
    with pytest.raises(PolicyError, match=r"policy Mine: .*mine\.py:6: SystemExit: 3"):
        make_policy(load_policy_class(RoleName.CPU, f"{tmp_path}/mine.py:Mine"))


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        ("1 / 0", "mine.py:7: ZeroDivisionError: division by zero"),
        ("__import__('json').loads('{')", "mine.py:7: JSONDecodeError: Expecting property name"),
        ("CpuPlan(1, 2, 3)", "mine.py:7: TypeError: "),
        ("exit(3)", "mine.py:7: SystemExit: 3"),
    ],
)
def test_a_failure_names_the_policys_own_line(tmp_path: Path, answer: str, failure: str) -> None:
    (tmp_path / "mine.py").write_text(GOOD.replace("return CpuPlan(), state", f"return {answer}"))
    policy = make_policy(load_policy_class(RoleName.CPU, f"{tmp_path}/mine.py:Mine"))
    with pytest.raises((Exception, SystemExit)) as caught:
        PolicySeat(policy, None).ask(None, 0.0, CpuPlan)
    assert describe_failure(caught.value).startswith(f"{tmp_path}/{failure}")


def test_an_answer_of_another_kind_is_nobodys_line(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(GOOD.replace("return CpuPlan(), state", "return 1"))
    policy = make_policy(load_policy_class(RoleName.CPU, f"{tmp_path}/mine.py:Mine"))
    with pytest.raises(TypeError) as caught:
        PolicySeat(policy, None).ask(None, 0.0, CpuPlan)
    assert describe_failure(caught.value) == (
        "TypeError: decide returned int, not (CpuPlan, state)"
    )
