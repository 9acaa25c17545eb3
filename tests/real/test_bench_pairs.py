"""Policies in turn on real guests, as the bench's user sees it."""

import json
import os
import subprocess
from statistics import median
from typing import Any

import pytest

from tests.real.program_process import BIN

pytestmark = pytest.mark.lab_full


def test_a_heap_left_alone_gets_less_done_than_one_that_is_spread() -> None:
    if len(os.sched_getaffinity(0)) != 2:
        pytest.skip("this case is written for 2 pCPUs")
    words = ["bench", "pairs", "c1/4-on-2/1s", "--on", "lab", "--pairs", "5", "--json"]
    words += ["--policy", "balance", "--policy", "hold"]
    words += ["--set", "duration_s=10", "--set", "measure_from_s=4"]
    done = subprocess.run(
        [BIN / "virt-balance", *words], capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr
    turns: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    there, back = ["balance", "hold"], ["hold", "balance"]
    assert [turn["policy"] for turn in turns] == there + back + there + back + there
    assert all(list(turn["work"]) == ["g0", "g1", "g2", "g3"] for turn in turns)
    assert min(turn["total"] for turn in turns) > 0.4
    for figure in ("total", "least"):
        assert _by_policy(turns, "balance", figure) > 1.1 * _by_policy(turns, "hold", figure)


def _by_policy(turns: list[dict[str, Any]], policy: str, figure: str) -> float:
    """Return the median over turns: a virtual machine's speed is 1.7 apart from one to the next."""
    done: list[float] = [turn[figure] for turn in turns if turn["policy"] == policy]
    return median(done)
