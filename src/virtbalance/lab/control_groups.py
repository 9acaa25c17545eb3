"""The control groups libvirt makes for a guest, removed when libvirt is not there to do it.

Where no systemd manages them they are /MACHINES/qemu-embed-HASH-ID-NAME.libvirt-qemu in every
hierarchy, with one group below for each vCPU and one for the rest of QEMU.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
MARK = "qemu-embed-"
"""Only an embedded driver's groups: others are the business of their libvirtd."""


def guest_groups(pid: int) -> set[str]:
    """Return the groups of the guest a process runs, relative to their hierarchies' roots."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return set()
    found = set()
    for line in lines:  # hierarchy number, controllers, path
        parts = line.split(":", 2)[2].strip("/").split("/")
        for depth, part in enumerate(parts, start=1):
            if part.startswith(MARK):
                found.add("/".join(parts[:depth]))
    return found


def remove_groups(groups: set[str], root: Path = ROOT) -> None:
    """Remove the groups, with those below them, from every hierarchy; a group in use stays."""
    for group in groups:
        for top in [root / group, *(hierarchy / group for hierarchy in root.iterdir())]:
            for folder in [*sorted(top.glob("*/")), top]:
                with contextlib.suppress(OSError):
                    folder.rmdir()
