"""Where state and run-time files live."""

import os
from pathlib import Path


def state_directory() -> Path:
    """Return where the journal lives: survives a reboot."""
    return _directory("VIRT_BALANCE_STATE_DIR", Path("/var/lib"), "XDG_STATE_HOME", ".local/state")


def run_directory() -> Path:
    """Return where locks and last ticks live: need not survive a reboot."""
    return _directory("VIRT_BALANCE_RUN_DIR", Path("/run"), "XDG_RUNTIME_DIR", ".cache")


def _directory(override: str, system: Path, user_variable: str, user_default: str) -> Path:
    if override in os.environ:
        return Path(os.environ[override])
    if os.geteuid() == 0:
        return system / "virt-balance"
    return Path(os.environ.get(user_variable, Path.home() / user_default)) / "virt-balance"
