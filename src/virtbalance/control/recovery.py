"""Putting guests back as they were: at the end of a run, after a crash, or by hand."""

from dataclasses import dataclass

from virtbalance.control.hypervisor import Hypervisor
from virtbalance.control.journal import Entries, UndoStore
from virtbalance.control.role import Role
from virtbalance.model.plan import Action, guest_of
from virtbalance.model.tick import Event, Outcome, Status


@dataclass(frozen=True, slots=True)
class Recovery:
    """What was put back."""

    complete: bool
    """Nothing failed."""
    events: tuple[Event, ...] = ()


def put_back(
    hypervisor: Hypervisor, role: Role, journal: UndoStore, *, keep: bool, deadline_s: float
) -> Recovery:
    """Undo a role's changes and forget them, except those that could not be undone.

    ``keep``: undo only what is never kept, and leave the originals on record.
    Raises ``HypervisorLostError``, ``JournalError``.
    """
    entries = {uuid: e for uuid, e in journal.entries().items() if e.of(role.name)}
    if not entries:
        return Recovery(complete=True)
    snapshot = hypervisor.sample(role.scope, deadline_s)
    actions = role.putting_back(entries, snapshot, keep=keep)
    outcomes = hypervisor.apply(actions, deadline_s)
    failed = {
        guest_of(outcome.action): outcome
        for outcome in outcomes
        if outcome.status not in (Status.DONE, Status.GONE)
    }
    if not keep:
        journal.forget(role.name, frozenset(entries.keys() - failed.keys()))
    return Recovery(not failed, _events(entries, outcomes, failed))


def _events(
    entries: Entries, outcomes: tuple[Outcome, ...], failed: dict[str, Outcome]
) -> tuple[Event, ...]:
    by_guest: dict[str, list[Action]] = {}
    for outcome in outcomes:
        by_guest.setdefault(guest_of(outcome.action), []).append(outcome.action)
    events = []
    for uuid, actions in by_guest.items():
        name = entries[uuid].name
        if uuid in failed:
            why = failed[uuid].text or failed[uuid].status
            events.append(Event("not-restored", f"{name} could not be put back: {why}", uuid))
        else:
            what = "; ".join(str(action.reason) for action in actions)
            events.append(Event("restored", f"{name} put back: {what}", uuid))
    return tuple(events)
