"""``virt-balance reserve`` beside a running coordinator, on a libvirtd of our own."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.real.program_process import BIN, Program
from virtbalance.lab import Guest, GuestSpec, Lab
from virtbalance.lab.private_libvirtd import PrivateLibvirtd

pytestmark = pytest.mark.lab_full

MIB = 1024
SETTINGS = """
[memory.demand.budget]
budget_max_kib = 1572864
[memory.demand.need]
minimum_kib = 131072
"""
"""The three guests get 1536 MiB together, which is what they have at their start."""


@pytest.fixture(scope="module")
def guests(opened: Lab) -> list[Guest]:
    return opened.start([GuestSpec(name=name, maximum_mib=512) for name in ("db", "web", "old")])


def reserve(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "VIRT_BALANCE_RUN_DIR": str(directory / "run")}
    return subprocess.run(
        [str(BIN / "virt-balance"), "reserve", *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def coordinator(directory: Path, daemon: PrivateLibvirtd) -> Program:
    settings = directory / "settings.toml"
    settings.write_text(SETTINGS)
    words = ("1", "-c", daemon.uri, "--config", str(settings))
    return Program(directory, "memory_coordinator", *words)


def test_memory_is_freed_for_a_guest_that_is_then_started(
    tmp_path: Path, daemon: PrivateLibvirtd, opened: Lab, guests: list[Guest]
) -> None:
    with coordinator(tmp_path, daemon) as program:
        program.more_ticks(5)
        done = reserve(tmp_path, "500MiB", "-c", daemon.uri, "--then", "echo the guest may start")
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == "the guest may start"
        held = [tick for tick in program.ticks() if tick["host"]["reserved_kib"]]
        assert held[-1]["host"]["reserved_free_kib"] == 500 * MIB
        assert program.end() == 0
    sizes_mib = [guest.domain.info()[2] // MIB for guest in guests]
    assert sum(sizes_mib) <= 1536 - 500
    assert min(sizes_mib) >= 170, "nobody is taken below what it uses"
    for guest in guests:
        assert guest.report().memory.kills == 0


def test_what_can_not_be_freed_is_named_with_who_keeps_it(
    tmp_path: Path, daemon: PrivateLibvirtd, guests: list[Guest]
) -> None:
    with coordinator(tmp_path, daemon) as program:
        program.more_ticks(5)
        done = reserve(tmp_path, "1400MiB", "-c", daemon.uri, "--timeout", "15")
        tick = program.more_ticks(2)[-1]
        assert program.end() == 0
    assert done.returncode == 1
    first, *obstacles = done.stderr.splitlines()
    assert "of 1400 MiB can't be freed within 15 s" in first
    assert all("is not safe" in line for line in obstacles)
    assert [line.split()[2] for line in obstacles] == sorted(
        ("db", "web", "old"), key=lambda name: next(str(g.uuid) for g in guests if g.name == name)
    )
    assert tick["host"]["reserved_kib"] == 0, "it ended with the command"
