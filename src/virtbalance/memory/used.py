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

from dataclasses import dataclass
from enum import StrEnum

from virtbalance.memory.reports import Report

_IMPLAUSIBLE_OVERHEAD_RATIO = 0.25
"""No kernel keeps a quarter of the maximum from MemTotal."""
_FOLLOWS_RATIO = 0.25
"""MemTotal moved with the balloon to within this part of the move."""


class Mode(StrEnum):
    """How a guest counts the memory its balloon took."""

    UNKNOWN = "unknown"
    REMOVE = "remove"
    RESERVE = "reserve"


@dataclass(frozen=True, slots=True)
class Accounting:
    """What is known of one guest's way to count."""

    mode: Mode = Mode.UNKNOWN
    overhead_kib: int = 0
    """What the kernel keeps from MemTotal; meaningful once the mode is known."""
    rest_actual_kib: int | None = None
    """Balloon and MemTotal when it was last seen at rest."""
    rest_available_kib: int | None = None


def learn(
    accounting: Accounting,
    report: Report,
    actual_kib: int,
    maximum_kib: int,
    *,
    at_rest: bool,
    change_kib: int,
) -> Accounting:
    """Take in a new report; ``change_kib``: a move of the balloon that tells the mode."""
    if not at_rest:
        return accounting
    mode = _seen_standing(report.available_kib, actual_kib, maximum_kib) or _seen_moving(
        accounting, report.available_kib, actual_kib, change_kib
    )
    mode = mode or accounting.mode
    whole_kib = maximum_kib if mode is Mode.RESERVE else actual_kib
    overhead_kib = max(0, whole_kib - report.available_kib)
    rest_kib = accounting.rest_actual_kib
    if mode is Mode.UNKNOWN and rest_kib is not None and abs(actual_kib - rest_kib) < change_kib:
        # Keep the old resting place: many small moves must add up to one that tells.
        return accounting
    return Accounting(mode, overhead_kib, actual_kib, report.available_kib)


def used_kib(
    accounting: Accounting,
    report: Report,
    actual_kib: int,
    maximum_kib: int,
    *,
    at_rest: bool,
    previous_kib: int | None,
) -> int:
    """Return the memory in use according to a new report: 0 to ``actual_kib``.

    ``actual_kib``: the balloon when the report was written; where it was moving, the largest size
    it may have had, so that the error is on the safe side.
    """
    busy_kib = report.available_kib - report.usable_kib
    match accounting.mode:
        case Mode.REMOVE:
            used = busy_kib + accounting.overhead_kib
        case Mode.RESERVE:
            used = busy_kib - (maximum_kib - actual_kib) + accounting.overhead_kib
        case _ if at_rest or previous_kib is None:
            used = actual_kib - report.usable_kib
        case _:
            used = previous_kib
    return min(max(used, 0), actual_kib)


def _seen_standing(available_kib: int, actual_kib: int, maximum_kib: int) -> Mode | None:
    """Return the mode if sizes alone tell it."""
    if available_kib > actual_kib:
        return Mode.RESERVE
    if maximum_kib - actual_kib > _IMPLAUSIBLE_OVERHEAD_RATIO * maximum_kib:
        return Mode.REMOVE
    return None


def _seen_moving(
    accounting: Accounting, available_kib: int, actual_kib: int, change_kib: int
) -> Mode | None:
    """Return the mode if MemTotal did, or did not, follow a large enough move."""
    if accounting.rest_actual_kib is None or accounting.rest_available_kib is None:
        return None
    moved = actual_kib - accounting.rest_actual_kib
    if abs(moved) < change_kib:
        return None
    followed = available_kib - accounting.rest_available_kib
    if abs(followed - moved) <= _FOLLOWS_RATIO * abs(moved):
        return Mode.REMOVE
    if abs(followed) <= _FOLLOWS_RATIO * abs(moved):
        return Mode.RESERVE
    return None
