"""One JSON object a line: ticks (documented in ``tick_json``), and notices between them."""

import json

from virtbalance.control.observers import TextOutput
from virtbalance.model.guest import RoleName
from virtbalance.model.tick import Event, Tick
from virtbalance.telemetry.tick_json import FORMAT, event_object, tick_object


class JsonLines:
    """Writes every tick to a stream. A notice becomes an object with ``"notice"`` and no tick."""

    def __init__(self, stream: TextOutput, role: RoleName) -> None:
        self._stream = stream
        self._role = role

    def tick(self, tick: Tick) -> None:
        """Write a tick."""
        self._write(tick_object(tick))

    def notice(self, event: Event) -> None:
        """Write what happened between ticks."""
        self._write({"format": FORMAT, "role": str(self._role), "notice": event_object(event)})

    def _write(self, document: dict[str, object]) -> None:
        self._stream.write(json.dumps(document, separators=(",", ":")) + "\n")
        self._stream.flush()
