"""Reservations of memory, one file each, held by a process that wants memory kept free.

Whoever reserves memory keeps its file locked; the coordinator reads the files at every look. The
kernel releases the lock when the holder ends, however it ends, and with it the reservation.
"""

import contextlib
import fcntl
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from virtbalance.model.reservation import Reservation

_FOLDER = "reservations"


class Reservations:
    """The reservations of one host; ``directory`` is the host's in the run directory."""

    def __init__(self, directory: Path) -> None:
        self._folder = directory / _FOLDER

    def current(self) -> tuple[Reservation, ...]:
        """Return what is reserved now, oldest first; files without a holder are removed."""
        found = (_read(path) for path in sorted(self._folder.glob("*.json")))
        return tuple(reservation for reservation in found if reservation is not None)

    @contextlib.contextmanager
    def held(self, reservation: Reservation) -> Iterator[None]:
        """Keep memory reserved for as long as the block lasts. Raises ``OSError``."""
        self._folder.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=self._folder, prefix=".new-")
        path = Path(temporary)
        try:
            # Locked and complete before it gets its name: readers see no other.
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            document = {"size_kib": reservation.size_kib, "present": sorted(reservation.present)}
            os.write(descriptor, json.dumps(document).encode())
            path = path.rename(self._folder / f"{time.time_ns()}-{os.getpid()}.json")
            yield
        finally:
            path.unlink(missing_ok=True)
            os.close(descriptor)


def _read(path: Path) -> Reservation | None:
    """Return the reservation in a file that is held; ``None`` if it has ended."""
    try:
        with path.open(encoding="utf-8") as file:
            if _is_held(file.fileno()):
                document = json.load(file)
                return Reservation(document["size_kib"], frozenset(document["present"]))
            path.unlink(missing_ok=True)
    except FileNotFoundError:
        pass  # it ended just now
    return None


def _is_held(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False
