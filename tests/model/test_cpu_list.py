"""CPU lists of the kernel and of libvirt."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtbalance.model.cpu_list import format_cpu_list, parse_cpu_list


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("", set()),
        ("\n", set()),
        ("(null)", set()),
        ("0", {0}),
        ("0-3,8,10-11\n", {0, 1, 2, 3, 8, 10, 11}),
        ("0-3,^2", {0, 1, 3}),
        ("^1,0-2", {0, 2}),
    ],
)
def test_parse(text: str, cpus: set[int]) -> None:
    assert parse_cpu_list(text) == cpus


@pytest.mark.parametrize("text", ["a", "1-b", "1--2"])
def test_malformed(text: str) -> None:
    with pytest.raises(ValueError, match=r"invalid literal|no range"):
        parse_cpu_list(text)


def test_format() -> None:
    assert format_cpu_list({11, 0, 1, 2, 10, 5}) == "0-2,5,10-11"


@given(st.frozensets(st.integers(0, 300)))
def test_format_is_the_inverse_of_parse(cpus: frozenset[int]) -> None:
    assert parse_cpu_list(format_cpu_list(cpus)) == cpus
