"""What to put back: original affinities and balloons of every guest that was changed.

Written before the change (atomic, synced), so that a crash at any moment leaves enough on disk to
undo it. Both programs share the file; each touches only its own half of a guest's entry, under a
lock. What we set is written down beside the original: a value on the host that is neither was put
there by somebody else and is not ours to undo.

Entries are void after a reboot of the host, and for a guest that has been started anew since: the
changes went away with the process they were made to.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from virtbalance.control.files import write_atomically
from virtbalance.model.guest import RoleName
from virtbalance.model.snapshot import GuestSample, Snapshot

_VERSION = 1


class JournalError(Exception):
    """The journal can't be read or written; the message names the file."""


@dataclass(frozen=True, slots=True)
class PinnedVcpu:
    """One vCPU's affinity before us, and the masks we have set or tried to set since."""

    original: frozenset[int]
    ours: tuple[frozenset[int], ...] = ()


@dataclass(frozen=True, slots=True)
class SizedBalloon:
    """One guest's balloon before us, and the target we set last."""

    original_kib: int
    target_kib: int
    original_stats_period_s: int | None = None
    """``None``: we did not change the statistics period."""
    stats_period_s: int | None = None
    """What we have set it to."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What was done to one guest."""

    name: str
    incarnation: str
    vcpus: Mapping[int, PinnedVcpu] = field(default_factory=dict)
    balloon: SizedBalloon | None = None

    def of(self, role: RoleName) -> bool:
        """Return whether this role has changed the guest."""
        return bool(self.vcpus) if role is RoleName.CPU else self.balloon is not None

    def without(self, role: RoleName) -> "Entry":
        """Return the entry less this role's half."""
        return replace(self, vcpus={}) if role is RoleName.CPU else replace(self, balloon=None)


Entries = Mapping[str, Entry]
"""By guest UUID."""


def same_run(entries: Entries, snapshot: Snapshot) -> tuple[tuple[GuestSample, Entry], ...]:
    """Return the guests that are still in the run in which they were changed."""
    return tuple(
        (guest, entries[guest.uuid])
        for guest in snapshot.guests
        if guest.uuid in entries and entries[guest.uuid].incarnation == guest.incarnation
    )


def ended(entries: Entries, snapshot: Snapshot) -> frozenset[str]:
    """Return the guests that are gone or have been started anew since they were changed."""
    return frozenset(entries) - {guest.uuid for guest, _ in same_run(entries, snapshot)}


class UndoStore(Protocol):
    """Where entries are kept. Methods raise ``JournalError`` if that fails."""

    def entries(self) -> Entries:
        """Return all entries of this boot."""

    def update(self, role: RoleName, entries: Entries) -> None:
        """Keep this role's half of these guests' entries, before the change is made."""

    def forget(self, role: RoleName, uuids: frozenset[str]) -> None:
        """Drop this role's half of these guests' entries: they are as they were."""


class MemoryJournal:
    """Entries kept in memory only: for a host that ends with this process."""

    def __init__(self) -> None:
        self._entries: Entries = {}

    def entries(self) -> Entries:
        """Return all entries."""
        return self._entries

    def update(self, role: RoleName, entries: Entries) -> None:
        """Keep this role's half of these guests' entries."""
        self._entries = _updated(self._entries, role, entries)

    def forget(self, role: RoleName, uuids: frozenset[str]) -> None:
        """Drop this role's half of these guests' entries."""
        self._entries = _without(self._entries, role, uuids)


class Journal:
    """The file. Every method raises ``JournalError`` if it can't be read or written."""

    def __init__(self, directory: Path, boot_id: str) -> None:
        self._path = directory / "journal.json"
        self._lock_path = directory / "journal.lock"
        self._boot_id = boot_id

    def entries(self) -> Entries:
        """Return all entries of this boot."""
        with self._locked():
            return self._read()

    def update(self, role: RoleName, entries: Entries) -> None:
        """Write this role's half of these guests' entries, durably, before the change is made."""
        with self._locked():
            self._write(_updated(self._read(), role, entries))

    def forget(self, role: RoleName, uuids: frozenset[str]) -> None:
        """Drop this role's half of these guests' entries: they are as they were."""
        if uuids:
            with self._locked():
                self._write(_without(self._read(), role, uuids))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self._lock_path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise JournalError(f"cannot open {self._lock_path}: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _read(self) -> dict[str, Entry]:
        try:
            document = json.loads(self._path.read_text(encoding="utf-8"))
            if document["version"] != _VERSION:
                raise JournalError(
                    f"{self._path} is of version {document['version']}, not {_VERSION}"
                )
            if document["boot"] != self._boot_id:
                return {}
            return {uuid: _entry(value) for uuid, value in document["guests"].items()}
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise JournalError(f"cannot read {self._path}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise JournalError(
                f"{self._path} is damaged ({type(error).__name__}: {error}); "
                "move it away to start without restoring what it names"
            ) from error

    def _write(self, entries: Entries) -> None:
        guests = {uuid: _document(entry) for uuid, entry in sorted(entries.items())}
        document = {"version": _VERSION, "boot": self._boot_id, "guests": guests}
        try:
            write_atomically(self._path, json.dumps(document, indent=1) + "\n", durable=True)
        except OSError as error:
            raise JournalError(f"cannot write {self._path}: {error.strerror}") from error


def _updated(known: Entries, role: RoleName, entries: Entries) -> Entries:
    merged = {uuid: _merge(known.get(uuid), entry, role) for uuid, entry in entries.items()}
    return {**known, **merged}


def _without(known: Entries, role: RoleName, uuids: frozenset[str]) -> Entries:
    kept = {u: entry.without(role) if u in uuids else entry for u, entry in known.items()}
    return {uuid: entry for uuid, entry in kept.items() if entry.vcpus or entry.balloon}


def _merge(former: Entry | None, latter: Entry, role: RoleName) -> Entry:
    """Return the latter's half beside the former's other half, if it is still the same run."""
    if former is None or former.incarnation != latter.incarnation:
        return latter
    if role is RoleName.CPU:
        return replace(former, vcpus=latter.vcpus)
    return replace(former, balloon=latter.balloon)


def _document(entry: Entry) -> dict[str, Any]:
    document: dict[str, Any] = {"name": entry.name, "incarnation": entry.incarnation}
    if entry.vcpus:
        document["vcpus"] = {
            str(index): {
                "original": sorted(vcpu.original),
                "ours": [sorted(mask) for mask in vcpu.ours],
            }
            for index, vcpu in sorted(entry.vcpus.items())
        }
    if entry.balloon:
        document["balloon"] = {
            "original_kib": entry.balloon.original_kib,
            "target_kib": entry.balloon.target_kib,
            "original_stats_period_s": entry.balloon.original_stats_period_s,
            "stats_period_s": entry.balloon.stats_period_s,
        }
    return document


def _entry(document: dict[str, Any]) -> Entry:
    vcpus = {
        int(index): PinnedVcpu(
            frozenset(value["original"]), tuple(frozenset(mask) for mask in value["ours"])
        )
        for index, value in document.get("vcpus", {}).items()
    }
    balloon = SizedBalloon(**document["balloon"]) if "balloon" in document else None
    return Entry(document["name"], document["incarnation"], vcpus, balloon)
