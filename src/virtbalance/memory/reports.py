"""What a guest says about itself, as far as it can be believed, and how long ago it said it.

A guest writes its statistics every so often, with the time on its own clock. That time is only
compared with itself: when it changes, the report is new, and its age is counted from then on our
clock. It is told in whole seconds, so other figures under the same time are a new report, too. How
old the very first report is can't be known, so it is one of ``new_reports`` all the same but never
the only one.
"""

from typing import NamedTuple

from virtbalance.model.snapshot import MemorySample


class Report(NamedTuple):
    """One set of statistics that makes sense."""

    heard_s: float
    """When we first saw it, on our clock."""
    available_kib: int
    unused_kib: int
    usable_kib: int
    swap_in_kib: int
    major_faults: int


class Hearing(NamedTuple):
    """What has been heard from one guest so far."""

    last_update_s: int = 0
    reports: int = 0
    """How many believable ones since it was first seen."""
    heard_s: float | None = None
    """When the latest was first seen, believable or not."""
    last: Report | None = None
    """The latest believable one."""
    before: Report | None = None
    """The one before that."""
    nonsense: str | None = None
    """Why the latest report was not believed."""


def listen(hearing: Hearing, sample: MemorySample, now_s: float) -> Hearing:
    """Take one sample in; the same object comes back if it holds nothing new."""
    if sample.late or not sample.last_update_s:
        return hearing
    report, last_update_s = _read(sample, now_s), sample.last_update_s
    if last_update_s == hearing.last_update_s and not _differs(report, hearing):
        return hearing
    if isinstance(report, str):
        return Hearing(last_update_s, hearing.reports, now_s, hearing.last, hearing.before, report)
    return Hearing(last_update_s, hearing.reports + 1, now_s, last=report, before=hearing.last)


def _differs(report: Report | str, hearing: Hearing) -> bool:
    """Return whether a report of the same second says something else than the latest one."""
    if isinstance(report, str) or hearing.nonsense or hearing.last is None:
        return False
    return report._replace(heard_s=hearing.last.heard_s) != hearing.last


def _read(sample: MemorySample, now_s: float) -> Report | str:
    """Return the report, or what is wrong with it."""
    available, unused = sample.available_kib, sample.unused_kib
    if available is None or unused is None:
        return "it reports no memory figures"
    # Kernels before 3.14 do not know what could be freed: only what is free counts then.
    usable = unused if sample.usable_kib is None else sample.usable_kib
    if min(available, unused, usable) < 0 or available == 0:
        return "it reports negative memory"
    if usable > available or unused > available:
        return "it reports more free memory than it has"
    if available > sample.maximum_kib * 1.02:
        return "it reports more memory than it can have"
    return Report(
        now_s, available, unused, usable, sample.swap_in_kib or 0, sample.major_faults or 0
    )
