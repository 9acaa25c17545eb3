"""Memory kept free for a guest that is to be started."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reservation:
    """What somebody asked to be freed and kept free."""

    size_kib: int
    present: frozenset[str]
    """UUIDs of the guests there were when it was made: it is for others, and used up by them."""
