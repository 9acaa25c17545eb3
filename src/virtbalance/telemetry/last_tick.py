"""The last tick on disk, for ``status``, ``explain`` and whoever else wants to know."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from virtbalance.control.files import write_atomically
from virtbalance.model.guest import RoleName
from virtbalance.model.tick import Event, Tick
from virtbalance.telemetry.tick_json import event_object, tick_object

_SUBJECTS = {"resize": "memory", "set-stats-period": "statistics"}
_EARLIER = 4
"""Changes of a balloon that are remembered besides the latest."""


class LastTick:
    """Keeps a file with the last tick, the state of the connection and counts of events.

    The file says ``"dry_run"`` so that nobody takes a plan for a deed.
    """

    def __init__(self, path: Path, uri: str, *, dry_run: bool) -> None:
        self._path = path
        self._about = {"pid": os.getpid(), "uri": uri, "dry_run": dry_run}
        self._connected = True
        self._counts: Counter[str] = Counter()
        self._last_notice: dict[str, Any] | None = None
        self._tick: dict[str, Any] | None = None
        self._changes: dict[str, dict[str, dict[str, Any]]] = {}

    def tick(self, tick: Tick) -> None:
        """Replace the tick."""
        self._connected = True
        self._counts.update(event.kind for event in tick.events)
        self._counts.update(f"action-{outcome.status}" for outcome in tick.outcomes)
        self._tick = tick_object(tick)
        self._keep_changes(tick, self._tick)
        self._write()

    def notice(self, event: Event) -> None:
        """Note a lost or regained connection, and whatever else is said between ticks."""
        if event.kind == "connection-lost":
            self._connected = False
        elif event.kind == "reconnected":
            self._connected = True
        self._counts[event.kind] += 1
        self._last_notice = event_object(event)
        self._write()

    def _keep_changes(self, tick: Tick, document: dict[str, Any]) -> None:
        """Keep the latest change of every vCPU and balloon, as long as its guest is there.

        A balloon's has some before it as well: one step says little.
        """
        for action in document["actions"]:
            subject = (
                str(action["vcpu"]) if action["action"] == "pin" else _SUBJECTS[action["action"]]
            )
            changes = self._changes.setdefault(action["uuid"], {})
            change = {"time": document["time"], **action}
            if subject == "memory":
                change["earlier"] = _with_earlier(changes.get(subject))[:_EARLIER]
            changes[subject] = change
        present = {guest.uuid for guest in tick.snapshot.guests}
        for uuid in self._changes.keys() - present:
            del self._changes[uuid]

    def _write(self) -> None:
        document = {
            **self._about,
            "connected": self._connected,
            "counts": dict(sorted(self._counts.items())),
            "last_notice": self._last_notice,
            "last_changes": self._changes,
            "last_tick": self._tick,
        }
        write_atomically(self._path, json.dumps(document) + "\n", durable=False)


def _with_earlier(change: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Return a change and those before it, latest first."""
    if change is None:
        return []
    earlier: list[dict[str, Any]] = change["earlier"]
    return [{key: value for key, value in change.items() if key != "earlier"}, *earlier]


def last_tick_path(run_directory: Path, host_id: str, role: RoleName) -> Path:
    """Return where a role's last tick for a host is kept."""
    return run_directory / host_id / f"{role}.json"
