"""Policies in turn on real guests, as the bench's user sees it."""

import json
import os
import subprocess

import pytest

from tests.real.program_process import BIN

pytestmark = pytest.mark.lab_full


def test_a_heap_left_alone_gets_less_done_than_one_that_is_spread() -> None:
    if len(os.sched_getaffinity(0)) != 2:
        pytest.skip("this case is written for 2 pCPUs")
    words = ["bench", "pairs", "c1/4-on-2/1s", "--on", "lab", "--pairs", "1", "--json"]
    words += ["--policy", "balance", "--policy", "hold"]
    words += ["--set", "duration_s=14", "--set", "measure_from_s=5"]
    done = subprocess.run(
        [BIN / "virt-balance", *words], capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr
    spread, heap = (json.loads(line) for line in done.stdout.splitlines())
    assert (spread["policy"], heap["policy"]) == ("balance", "hold")
    assert list(spread["work"]) == ["g0", "g1", "g2", "g3"]
    assert heap["total"] > 0.4
    assert 0.4 < spread["machine_speed"] / heap["machine_speed"] < 2.5
    assert spread["total"] > 1.1 * heap["total"]
    assert spread["least"] > 1.1 * heap["least"]
