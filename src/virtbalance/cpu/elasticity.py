"""Whether a vCPU that has to wait wants less: learnt from what it ran alone and in company.

A closed loop (work, think, repeat) that waits for a share q of the time runs 1 - q times what it
would run alone; requests that arrive whether or not the former are done run the same, only later.
With u = run while it hardly waits, the share of waiting that is missing in its run is

    theta = (u - run) / (u x q)

1 for the loop, 0 for the arrivals. It is the slope of a line through the origin, so moments with
much waiting count more, and it starts from 1 with the weight of eight moments of q = 0.3: a closed
loop until shown otherwise (cpu.md, section 2). How demand follows from it is told in ``demand``.

Example: u = 0.50; beside a hog a loop shows run 0.33, q 0.33: theta 1. Arrivals of 0.50 show run
0.50, q 0.30: theta 0, and after 24 such moments 0.25 together with the prior.
"""

from dataclasses import dataclass

LITTLE_WAIT_RATIO = 0.05
"""Up to here a vCPU counts as alone."""
LEAST_IDLE_RATIO = 0.1
"""A vCPU that is hardly idle has a backlog or is a hog: it tells nothing here."""
LEAST_RUN_RATIO = 0.03
"""Below this, differences of run mean nothing."""
NEWEST = 0.25
"""Weight of the newest moment in what it runs alone."""
KEPT = 0.99
"""Of the evidence, from moment to moment."""
PRIOR = 8 * 0.3**2


@dataclass(frozen=True, slots=True)
class Elasticity:
    """What has been learnt of one vCPU."""

    alone_ratio: float | None = None
    """Its run while it hardly waits; ``None``: not seen since its demand changed."""
    waited: float = 0.0
    """Sum of q squared."""
    missed: float = 0.0
    """Sum of q times the part of u that was not run."""

    @property
    def theta(self) -> float:
        """Return the share of waiting that is missing in its run, 0 to 1."""
        return min(1.0, max(0.0, (PRIOR + self.missed) / (PRIOR + self.waited)))

    def changed(self) -> "Elasticity":
        """Return the same after its demand has changed: its nature stays, the level does not."""
        return Elasticity(None, self.waited, self.missed)

    def seen(self, run: float, wait: float) -> "Elasticity":
        """Return what is known after one more moment; both are shares of the time."""
        if wait <= LITTLE_WAIT_RATIO:
            former = self.alone_ratio
            alone = run if former is None else former + NEWEST * (run - former)
            return Elasticity(alone, self.waited, self.missed)
        idle = 1 - run - wait
        if self.alone_ratio is None or self.alone_ratio < LEAST_RUN_RATIO:
            return self
        if idle < LEAST_IDLE_RATIO:
            return self
        missing = (self.alone_ratio - run) / self.alone_ratio
        return Elasticity(
            self.alone_ratio,
            KEPT * self.waited + wait * wait,
            KEPT * self.missed + wait * missing,
        )
