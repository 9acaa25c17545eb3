"""What is done and why, a line each, and nothing else: for logs, and for the demo."""

from virtbalance.control.observers import TextOutput
from virtbalance.model.tick import Event, Tick
from virtbalance.ui.tick_table import outcome_line


class ActionLines:
    """An observer that prints actions and events only, each with its reason."""

    def __init__(self, stream: TextOutput) -> None:
        self._stream = stream
        self._said: set[str] = set()

    def tick(self, tick: Tick) -> None:
        """Print what this tick did."""
        names = {guest.uuid: guest.name for guest in tick.snapshot.guests}
        lines = [outcome_line(outcome, names) for outcome in tick.outcomes]
        lines += [f"! {event.text}" for event in tick.events if event.kind != "guest-started"]
        for line in lines:
            print(f"  {tick.role:6} {line}", file=self._stream, flush=True)

    def notice(self, event: Event) -> None:
        """Print what happened between ticks."""
        if event.text not in self._said:  # both programs notice the same facts about the host
            self._said.add(event.text)
            print(f"  {event.text}", file=self._stream, flush=True)
