"""Random numbers by purpose, so that one contender's choices never shift another's luck.

Every use of chance (one vCPU's work, one group's bursts) has a generator of its own, derived from
the seed and the purpose's name. What a policy does changes when numbers are used, never which.
"""

import hashlib
import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Streams:
    """All generators of one run."""

    seed: int

    def stream(self, *purpose: object) -> random.Random:
        """Return a fresh generator for a purpose; equal purposes give equal numbers."""
        return random.Random(self._digest(purpose))  # noqa: S311 - reproducible, not secret

    def name(self, *purpose: object) -> str:
        """Return 32 hexadecimal digits for a purpose: identifiers that are the same every run."""
        return f"{self._digest(purpose):064x}"[:32]

    def _digest(self, purpose: tuple[object, ...]) -> int:
        text = "/".join([str(self.seed), *map(str, purpose)])
        return int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")
