"""KVM or TCG: decided by trying, because /dev/kvm may be there and still not boot a guest.

The answer is remembered in the cache until the host's next boot.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from virtbalance.lab.processes import boot_id

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PATIENCE_S = 8.0
"""With KVM a guest is up in about a second; one that is not by then never will be."""

KVM_DEVICE = "/dev/kvm"


def virtualization(cache: Path, boots: Callable[[], bool], say: Callable[[str], None]) -> str:
    """Return libvirt's domain type for guests, `kvm` or `qemu` (TCG), and say which.

    `boots` starts a guest under KVM and says whether it reported within PATIENCE_S; it is called
    where there is a KVM device and no answer of this boot of the host.
    """
    memory = cache / "virtualization.json"
    choice = _remembered(memory)
    if choice is None:
        choice = _tried(boots)
        temporary = memory.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps({"boot": boot_id(), **choice}))
        temporary.rename(memory)
    say(f"lab: guests run under {choice['says']}")
    return choice["type"]


def _tried(boots: Callable[[], bool]) -> dict[str, str]:
    if not os.access(KVM_DEVICE, os.R_OK | os.W_OK):
        return {"type": "qemu", "says": f"TCG ({KVM_DEVICE} can't be used)"}
    if not boots():
        return {"type": "qemu", "says": f"TCG (no guest came up under KVM in {PATIENCE_S:g} s)"}
    return {"type": "kvm", "says": "KVM"}


def _remembered(memory: Path) -> dict[str, str] | None:
    try:
        choice = json.loads(memory.read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(choice, dict) or choice.get("boot") != boot_id():
        return None
    return choice if {"type", "says"} <= choice.keys() else None
