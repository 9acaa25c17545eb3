"""Leaving a guest alone for a while."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Hold:
    """A guest that is left alone for a while because somebody else changed it."""

    until_s: float
    """Monotonic time; infinite: until a restart or ``virt-balance set``."""
    text: str
