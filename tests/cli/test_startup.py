"""A short command imports nothing heavy."""

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"numpy", "matplotlib", "textual", "pydantic", "libvirt"}
PROBE = """
import sys
from virtbalance.cli.main import main
sys.argv[0] = "virt-balance"
try:
    main({words!r})
except SystemExit:
    pass
print(*sorted({{name.partition('.')[0] for name in sys.modules}}), file=sys.stderr)
"""


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["cpu", "--help"], ["status"]])
def test_no_heavy_module_is_imported(
    tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIRT_BALANCE_RUN_DIR", str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(words=words)],
        capture_output=True,
        text=True,
        check=True,
    )
    imported = set(done.stderr.split())
    assert "virtbalance" in imported
    assert not imported & HEAVY
