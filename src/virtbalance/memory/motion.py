"""Whether a guest's balloon goes where it is asked to (memory.md, section 8).

Setting a target always succeeds; only the balloon's size tells what became of it. A driver can
refuse for ever (out of memory), crawl, or not be there at all. It is *stuck* then: the target is
taken back to where the balloon is, so that the guest does not spend its time trying, and it is
asked again after a while, less and less often until a move was completed.

                gap opens         moved < 1 MiB for 6 s,        wait over
    at rest  ---------------> moving ------------------> stuck ------------> at rest
       ^                        |   < 1 MiB/s over 30 s
       '------------------------'
          arrived: all forgotten
"""

from typing import NamedTuple

from virtbalance.memory.settings import TrustSettings

_FAILURES_COUNTED = 30
"""More would double beyond any waiting time."""


class Motion(NamedTuple):
    """How one balloon has followed lately."""

    direction: int = 0
    """+1: it is to grow, -1: to shrink, 0: it is where it should be."""
    since_s: float = 0.0
    """Since when it has been moving, or its speed has been measured anew."""
    from_kib: int = 0
    """Its size then; at rest: where it rests."""
    moved_s: float = 0.0
    """When it last moved at all."""
    moved_kib: int = 0
    """Its size then."""
    stuck_until_s: float | None = None
    failures: int = 0
    """Times it got stuck without a completed move in between."""

    @property
    def stuck(self) -> bool:
        """Whether it is given up for now."""
        return self.stuck_until_s is not None

    def halted(self) -> "Motion":
        """Return what is left to remember while the guest does not run and no balloon moves."""
        return Motion(
            from_kib=self.from_kib, stuck_until_s=self.stuck_until_s, failures=self.failures
        )


def watch(
    motion: Motion,
    actual_kib: int,
    target_kib: int,
    now_s: float,
    settings: TrustSettings,
    tolerance_kib: int,
) -> Motion:
    """Take in where the balloon is and where it should be."""
    if motion.stuck_until_s is not None:
        if now_s < motion.stuck_until_s:
            return motion
        motion = Motion(from_kib=actual_kib, failures=motion.failures)
    gap_kib = target_kib - actual_kib
    direction = 0 if abs(gap_kib) <= tolerance_kib else 1 if gap_kib > 0 else -1
    if direction == 0:
        return _arrived(motion, actual_kib, settings)
    if direction != motion.direction:
        return Motion(direction, now_s, actual_kib, now_s, actual_kib, None, motion.failures)
    if (actual_kib - motion.moved_kib) * direction >= settings.stuck_move_kib:
        motion = motion._replace(moved_s=now_s, moved_kib=actual_kib)
    elif now_s - motion.moved_s >= settings.stuck_s:
        return _give_up(motion, now_s, settings)
    return _judge_speed(motion, actual_kib, now_s, settings)


def _arrived(motion: Motion, actual_kib: int, settings: TrustSettings) -> Motion:
    """Clear the record after a completed move, not after a target taken back to the balloon.

    A fast driver may have completed it since the last look.
    """
    moved = abs(actual_kib - motion.from_kib) >= settings.stuck_move_kib
    return Motion(from_kib=actual_kib, failures=0 if moved else motion.failures)


def _judge_speed(motion: Motion, actual_kib: int, now_s: float, settings: TrustSettings) -> Motion:
    passed_s = now_s - motion.since_s
    if passed_s < settings.crawl_s:
        return motion
    if abs(actual_kib - motion.from_kib) < settings.crawl_kib_s * passed_s:
        return _give_up(motion, now_s, settings)
    return motion._replace(since_s=now_s, from_kib=actual_kib)


def _give_up(motion: Motion, now_s: float, settings: TrustSettings) -> Motion:
    wait_s = min(settings.retry_s * 2**motion.failures, settings.retry_max_s)
    failures = min(motion.failures + 1, _FAILURES_COUNTED)
    return Motion(stuck_until_s=now_s + wait_s, failures=failures)
