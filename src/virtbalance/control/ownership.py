"""Whose value is it? What we set last, and what to do when somebody else changes it.

One rule for affinity and balloon: the first foreign change is accepted as the new original and
the guest is held for a minute; a second one within ten minutes means that somebody else is in
charge, and the guest is left alone until a restart or ``virt-balance set``.

A call that did not answer in time may still take effect, so a subject can have several values
that are ours; any of them on the host is no conflict.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from virtbalance.model.hold import Hold
from virtbalance.model.tick import Event

Subject = TypeVar("Subject")
Value = TypeVar("Value")

HOLD_S = 60.0
RELEASE_WITHIN_S = 600.0


@dataclass(frozen=True, slots=True)
class ForeignChange(Generic[Subject, Value]):
    """A value on the host that is not ours."""

    uuid: str
    guest_name: str
    subject: Subject
    seen: Value
    text: str
    """What changed, for people: ``vCPU 0 runs on 1, we had set 0``."""


@dataclass(frozen=True)  # without slots: they break Ownership[S, V]() on Python 3.11
class Ownership(Generic[Subject, Value]):
    """What we set last, the conflicts met, and the holds that follow from them."""

    ours: Mapping[Subject, tuple[Value, ...]] = field(default_factory=dict)
    """Per subject the values that may be ours, the latest last."""
    conflicts_s: Mapping[str, float] = field(default_factory=dict)
    """Per guest UUID the time of the last conflict."""
    holds: Mapping[str, Hold] = field(default_factory=dict)

    def settled(self, subject: Subject) -> Value | None:
        """Return the value we set last; ``None`` if we never set one."""
        values = self.ours.get(subject)
        return values[-1] if values else None

    def set_by_us(
        self, subject: Subject, value: Value, *, certain: bool
    ) -> "Ownership[Subject, Value]":
        """Note that we set a value; not ``certain`` when the answer is still outstanding."""
        former = () if certain else self.ours.get(subject, ())
        return replace(self, ours={**self.ours, subject: (*former, value)})

    def without(
        self, subjects: Iterable[Subject], uuids: Iterable[str]
    ) -> "Ownership[Subject, Value]":
        """Forget subjects and guests that are gone."""
        gone, gone_uuids = frozenset(subjects), frozenset(uuids)
        return Ownership(
            {s: v for s, v in self.ours.items() if s not in gone},
            {u: t for u, t in self.conflicts_s.items() if u not in gone_uuids},
            {u: h for u, h in self.holds.items() if u not in gone_uuids},
        )

    def forgive(self, uuids: Iterable[str]) -> "Ownership[Subject, Value]":
        """Lift holds and forget conflicts of guests whose owner wants them served again."""
        return self.without((), uuids)

    def expire(self, now_s: float) -> "Ownership[Subject, Value]":
        """Drop holds whose time is over."""
        live = {uuid: hold for uuid, hold in self.holds.items() if hold.until_s > now_s}
        return self if len(live) == len(self.holds) else replace(self, holds=live)


def yield_to(
    ownership: Ownership[Subject, Value],
    changes: Iterable[ForeignChange[Subject, Value]],
    now_s: float,
) -> tuple[Ownership[Subject, Value], tuple[Event, ...]]:
    """Accept foreign changes: hold each guest, or let it go for good at its second conflict.

    Several changes of one guest seen at once are one conflict.
    """
    by_guest: dict[str, list[ForeignChange[Subject, Value]]] = {}
    for change in changes:
        by_guest.setdefault(change.uuid, []).append(change)
    events = []
    for uuid, met in by_guest.items():
        ours = {**ownership.ours, **{change.subject: (change.seen,) for change in met}}
        last_s = ownership.conflicts_s.get(uuid)
        again = last_s is not None and now_s - last_s <= RELEASE_WITHIN_S
        what = "; ".join(change.text for change in met)
        hold = Hold(math.inf if again else now_s + HOLD_S, f"changed by somebody else ({what})")
        ownership = Ownership(
            ours, {**ownership.conflicts_s, uuid: now_s}, {**ownership.holds, uuid: hold}
        )
        consequence = (
            "left alone until a restart or 'virt-balance set'"
            if again
            else f"held for {HOLD_S:.0f} s"
        )
        kind = "guest-released" if again else "foreign-change"
        events.append(Event(kind, f"{met[0].guest_name}: {what}; {consequence}", uuid))
    return ownership, tuple(events)
