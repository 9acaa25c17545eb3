"""The lines of ``virt-balance plan``: what would be done, and what it promises."""

from collections.abc import Sequence

from virtbalance.cpu.promise import Promise, Service
from virtbalance.model.cpu_estimate import CpuEstimate
from virtbalance.model.plan import Pin
from virtbalance.model.tick import Tick
from virtbalance.ui.text import table
from virtbalance.ui.tick_table import outcome_line

_ROWS = 24
"""A plan should fit a screen: of more pCPUs only those are shown whose load would change most."""


def plan_lines(tick: Tick, promise: Promise) -> list[str]:
    """Return the lines for a dry tick and what its actions promise."""
    assert isinstance(tick.estimate, CpuEstimate)
    names = {guest.uuid: guest.name for guest in tick.snapshot.guests}
    pins = len({o.action.vcpu for o in tick.outcomes if isinstance(o.action, Pin)})
    return [
        f"{tick.policy}, after {tick.period_s:g} s: {pins or 'no'} pin{'s' * (pins != 1)}",
        *(f"  {row}" for row in _pcpu_table(tick.estimate, promise)),
        *(f"  {row}" for row in _summary(promise)),
        *(f"  {outcome_line(outcome, names)}" for outcome in tick.outcomes),
        *(f"  refused: {note.asked}: {note.reason}" for note in tick.verdict.amendments),
        *(f"  ! {event.text}" for event in tick.events),
    ]


def _pcpu_table(estimate: CpuEstimate, promise: Promise) -> list[str]:
    before, after = promise.before.loads, promise.after.loads
    by_change = sorted(before, key=lambda cpu: (-abs(after[cpu] - before[cpu]), cpu))
    shown = sorted(by_change[:_ROWS])
    rows = [
        (str(cpu), f"{estimate.capacity[cpu]:.2f}", f"{before[cpu]:.2f}", f"{after[cpu]:.2f}")
        for cpu in shown
    ]
    hidden = len(before) - len(shown)
    return table(("pCPU", "can give", "owes", "then"), rows) + (
        [f"… and {hidden} more"] if hidden else []
    )


def _summary(promise: Promise) -> Sequence[str]:
    def shortfall(service: Service) -> str:
        return f"{service.shortfall:.2f} pCPUs ({service.shortfall_ratio:.1%})"

    before, after = promise.before, promise.after
    undelivered = f"not delivered: {shortfall(before)}, then {shortfall(after)}"
    return (
        f"owed {before.owed:.2f} pCPUs, {undelivered}",
        f"deviation of the loads: {before.spread_ratio:.2f}, then {after.spread_ratio:.2f}",
    )
