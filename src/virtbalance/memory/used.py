"""How much memory a guest really uses, although its report and its size are read apart.

The balloon's size C is read from QEMU now; the statistics were written by the guest up to a period
ago, and the balloon may have moved in between. ``C - usable`` is then wrong by the whole move. But
MemTotal ("available") and MemAvailable ("usable") were written together, so their difference does
not suffer. What it lacks depends on how the guest counts:

- *remove*: MemTotal shrinks with the balloon. Lacking is only what the kernel keeps from MemTotal,
  a constant: C - MemTotal, seen while the balloon is at rest.
- *reserve* (autodeflate, Windows): MemTotal stays, and what the balloon took counts as used. So
  that is taken off again, and only then the constant (maximum - MemTotal) added.

    C 512, MemTotal 457, usable 200, maximum 2048   remove:  457 - 200 + (512 - 457)  = 312
    C 512, MemTotal 1993, usable 200                reserve: 1993 - 200 - (2048 - 512)
                                                             + (2048 - 1993)          = 312
"""

from enum import StrEnum
from typing import NamedTuple

from virtbalance.memory.reports import Report

_IMPLAUSIBLE_OVERHEAD_RATIO = 0.25
"""No kernel keeps a quarter of the maximum from MemTotal."""
_STILL_KIB = 1024
"""A balloon that moved less than this from one look to the next stands still."""
_FOLLOWS_RATIO = 0.75
"""MemTotal that made this part of the balloon's move or more follows it."""
_STAYS_RATIO = 0.25
"""One that made this part or less does not."""


class Mode(StrEnum):
    """How a guest counts the memory its balloon took."""

    UNKNOWN = "unknown"
    REMOVE = "remove"
    RESERVE = "reserve"


class Accounting(NamedTuple):
    """What is known of one guest's way to count."""

    mode: Mode = Mode.UNKNOWN
    overhead_kib: int = 0
    """What the kernel keeps from MemTotal; meaningful once the mode is known."""
    rest_actual_kib: int | None = None
    """Balloon and MemTotal when it was last seen at rest."""
    rest_available_kib: int | None = None


class Sizes(NamedTuple):
    """What the host knows of a balloon when a report is first seen."""

    actual_kib: int
    before_kib: int | None
    """Its size at the look before; the report was written in between. ``None``: the first look."""
    maximum_kib: int
    arrived: bool
    """It is where it was asked to be."""

    @property
    def at_rest(self) -> bool:
        """Whether it was surely of this size when the report was written."""
        return (
            self.arrived
            and self.before_kib is not None
            and abs(self.actual_kib - self.before_kib) <= _STILL_KIB
        )

    @property
    def largest_kib(self) -> int:
        """The largest size it may have had then: errors are on the safe side with it."""
        return max(self.actual_kib, self.before_kib or 0)


def learn(accounting: Accounting, report: Report, sizes: Sizes, change_kib: int) -> Accounting:
    """Take in a new report; ``change_kib``: a move of the balloon that tells the mode."""
    mode = _seen_standing(report.available_kib, sizes, change_kib) or _seen_moving(
        accounting, report.available_kib, sizes, change_kib
    )
    known = accounting.mode
    if sizes.at_rest:
        return _rested(accounting, mode or known, report.available_kib, sizes, change_kib)
    if mode is None or mode is known:
        return accounting
    overhead_kib = _overhead_kib(accounting, mode, report, sizes)
    return accounting._replace(mode=mode, overhead_kib=overhead_kib)


def used_kib(accounting: Accounting, report: Report, sizes: Sizes, previous_kib: int | None) -> int:
    """Return the memory in use according to a new report: 0 to the balloon's size."""
    busy_kib = report.available_kib - report.usable_kib
    match accounting.mode:
        case Mode.REMOVE:
            used = busy_kib + accounting.overhead_kib
        case Mode.RESERVE:
            used = busy_kib - (sizes.maximum_kib - sizes.largest_kib) + accounting.overhead_kib
        case _ if sizes.at_rest or previous_kib is None:
            used = sizes.largest_kib - report.usable_kib
        case _:
            used = previous_kib
    return min(max(used, 0), sizes.largest_kib)


def _rested(
    accounting: Accounting, mode: Mode, available_kib: int, sizes: Sizes, change_kib: int
) -> Accounting:
    """Note what was seen at rest."""
    rest_kib, now_kib = accounting.rest_actual_kib, sizes.actual_kib
    if mode is Mode.UNKNOWN and rest_kib is not None and abs(now_kib - rest_kib) < change_kib:
        # Keep the old resting place: many small moves must add up to one that tells.
        return accounting
    whole_kib = sizes.maximum_kib if mode is Mode.RESERVE else now_kib
    return Accounting(mode, max(0, whole_kib - available_kib), now_kib, available_kib)


def _overhead_kib(accounting: Accounting, mode: Mode, report: Report, sizes: Sizes) -> int:
    """Return what the kernel keeps, for a mode that has just shown itself on the move."""
    if mode is Mode.RESERVE:
        return max(0, sizes.maximum_kib - report.available_kib)
    if accounting.rest_actual_kib is None or accounting.rest_available_kib is None:
        return max(0, sizes.largest_kib - report.available_kib)
    return max(0, accounting.rest_actual_kib - accounting.rest_available_kib)


def _seen_standing(available_kib: int, sizes: Sizes, change_kib: int) -> Mode | None:
    """Return the mode if sizes alone tell it."""
    if available_kib < (1 - _IMPLAUSIBLE_OVERHEAD_RATIO) * sizes.maximum_kib:
        return Mode.REMOVE
    if sizes.before_kib is not None and available_kib > sizes.largest_kib + change_kib:
        return Mode.RESERVE
    return None


def _seen_moving(
    accounting: Accounting, available_kib: int, sizes: Sizes, change_kib: int
) -> Mode | None:
    """Return the mode if MemTotal did, or did not, follow a large enough move since the last rest.

    The balloon may still be moving: of the sizes it may have had when the report was written, the
    one nearer to the rest counts.
    """
    rest_kib, rest_available_kib = accounting.rest_actual_kib, accounting.rest_available_kib
    if rest_kib is None or rest_available_kib is None or sizes.before_kib is None:
        return None
    moves = (sizes.actual_kib - rest_kib, sizes.before_kib - rest_kib)
    moved_kib = min(moves, key=abs)
    if abs(moved_kib) < change_kib or moves[0] * moves[1] < 0:
        return None
    followed_ratio = (available_kib - rest_available_kib) / moved_kib
    if followed_ratio >= _FOLLOWS_RATIO:
        return Mode.REMOVE
    return Mode.RESERVE if followed_ratio <= _STAYS_RATIO else None
