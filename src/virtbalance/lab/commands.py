"""Run a helper program of the host and turn its failure into a clear error."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

from virtbalance.lab.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def require(program: str, package: str) -> str:
    """Return the path of a program; LabError names the package it comes in."""
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    if found is None:
        raise LabError(f"{program} is not installed (package {package})")
    return found


def output_of(
    command: Sequence[str], *, folder: Path | None = None, timeout_s: float = 600.0
) -> bytes:
    """Run a command to its end and return its standard output; LabError if it fails."""
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, timeout=timeout_s, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LabError(f"{command[0]}: {error}") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        reason = said[-1] if said else f"exit code {done.returncode}"
        raise LabError(f"{' '.join(command)}: {reason}")
    return done.stdout
