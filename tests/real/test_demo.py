"""The demo as its user sees it."""

import subprocess
from pathlib import Path

import pytest

from tests.real.program_process import BIN

pytestmark = pytest.mark.lab_full


def qemu_processes() -> set[str]:
    """Return the numbers of all QEMU processes of this machine."""
    return {
        path.parent.name
        for path in Path("/proc").glob("[0-9]*/comm")
        if path.read_text(errors="replace").startswith("qemu-system")
    }


def test_the_demo_serves_four_guests_and_leaves_nothing() -> None:
    before = qemu_processes()
    done = subprocess.run(
        [BIN / "virt-balance", "demo", "--seconds", "25"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    lines = done.stdout.splitlines()
    pins = [line for line in lines if line.startswith("  cpu ") and "to pCPU 1" in line]
    assert len(pins) == 2
    assert any("→ set hungry to" in line for line in lines)
    assert any("→ set lazy to" in line for line in lines)
    summary = next(i for i, line in enumerate(lines) if line.startswith("guest "))
    rows = [line.split() for line in lines[summary:]]
    (hungry,) = (row for row in rows if row and row[0] == "hungry")
    (lazy,) = (row for row in rows if row and row[0] == "lazy")
    assert int(hungry[5]) > int(hungry[4])
    assert int(lazy[5]) < int(lazy[4])
    assert lines[-1] == "all guests ended, nothing is left behind"
    assert qemu_processes() <= before
