"""What both roles keep from tick to tick: the policy, the estimate, what is theirs to undo."""

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

from virtbalance.control.journal import Entry, ended
from virtbalance.control.ownership import Ownership, Subject, Value
from virtbalance.control.policy_seat import PolicySeat
from virtbalance.model.hold import Hold
from virtbalance.model.snapshot import Snapshot
from virtbalance.model.tick import Status

Estimate = TypeVar("Estimate")

MAY_HAVE_HAPPENED = frozenset({Status.DONE, Status.DIFFERENT, Status.LATE})
"""Ends of an action after which the host may show what was asked for."""


class PolicyRole(Generic[Estimate, Subject, Value]):
    """The part of ``control.role.Role`` that is the same for vCPUs and for memory."""

    def __init__(self, policy: Any, policy_config: Any) -> None:
        self._seat = PolicySeat(policy, policy_config)
        self._ownership: Ownership[Subject, Value] = Ownership()
        self._undo: dict[str, Entry] = {}
        self._snapshot: Snapshot | None = None
        self._estimate: Estimate | None = None

    @property
    def policy_name(self) -> str:
        """The policy that decides."""
        return self._seat.name

    @property
    def estimate(self) -> Estimate:
        """The latest estimate."""
        assert self._estimate is not None, "there is an estimate after the first look"
        return self._estimate

    @property
    def holds(self) -> Mapping[str, Hold]:
        """Guests left alone because somebody else changed them."""
        return self._ownership.holds

    def _forget_gone(self, snapshot: Snapshot, guest_of: Callable[[Subject], str]) -> None:
        """Drop what is known of guests that are gone or have been started anew."""
        gone = ended(self._undo, snapshot)
        if gone:
            subjects = [subject for subject in self._ownership.ours if guest_of(subject) in gone]
            self._ownership = self._ownership.without(subjects, gone)
            self._undo = {uuid: e for uuid, e in self._undo.items() if uuid not in gone}
