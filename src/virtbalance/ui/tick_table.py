"""One compact table a tick, then a line for each action with its reason."""

import datetime as dt
from collections import defaultdict

from virtbalance.control.observers import TextOutput
from virtbalance.model.cpu_estimate import CpuEstimate, VcpuEstimate
from virtbalance.model.cpu_list import format_cpu_list
from virtbalance.model.guest import GuestState, RoleName
from virtbalance.model.memory_estimate import GuestMemoryEstimate, MemoryEstimate
from virtbalance.model.plan import Action, Pin, Resize, SetStatsPeriod, guest_of
from virtbalance.model.tick import Event, Outcome, Status, Tick
from virtbalance.ui.text import mib, table

_ROWS = 24
"""More guests than this are summed up: a tick should fit a screen."""


class TickTable:
    """Prints ticks and notices to a stream."""

    def __init__(self, stream: TextOutput, role: RoleName) -> None:
        self._stream = stream
        self._role = role
        self._waiting = False

    def tick(self, tick: Tick) -> None:
        """Print one tick; without running guests only once that it waits for some."""
        running = any(guest.state is GuestState.RUNNING for guest in tick.snapshot.guests)
        if not running and not tick.outcomes and not tick.events:
            if not self._waiting:
                self._print([f"{_stamp(tick)}  no guests running; waiting for some"])
            self._waiting = True
            return
        self._waiting = False
        self._print(tick_lines(tick))

    def notice(self, event: Event) -> None:
        """Print what happened between ticks."""
        self._print([f"{self._role}: {event.text}"])

    def _print(self, lines: list[str]) -> None:
        print("\n".join(lines), file=self._stream, flush=True)


def tick_lines(tick: Tick) -> list[str]:
    """Return the lines for one tick."""
    names = {guest.uuid: guest.name for guest in tick.snapshot.guests}
    estimate = tick.estimate
    if isinstance(estimate, CpuEstimate):
        summary, rows = _cpu_summary(estimate), _cpu_table(estimate)
    else:
        summary, rows = _memory_summary(estimate), _memory_table(estimate)
    took_ms = (tick.sense_ns + tick.decide_ns + tick.act_ns) / 1e6
    return [
        f"{_stamp(tick)}  {summary}, took {took_ms:.1f} ms",
        *(f"  {row}" for row in rows),
        *(f"  {outcome_line(outcome, names)}" for outcome in tick.outcomes),
        *(f"  ! {event.text}" for event in tick.events),
    ]


def outcome_line(outcome: Outcome, names: dict[str, str]) -> str:
    """Return one line: what is done, how it ended if not well, and why."""
    name = names.get(guest_of(outcome.action), guest_of(outcome.action))
    ended = "" if outcome.status is Status.DONE else f" [{outcome.status}"
    if ended:
        ended += f": {outcome.text}]" if outcome.text else "]"
    return f"→ {action_words(outcome.action, name)}{ended}: {outcome.action.reason}"


def action_words(action: Action, name: str) -> str:
    """Return what an action does, in words."""
    match action:
        case Pin(vcpu=key, cpus=cpus):
            return f"pin {name}/{key.vcpu} to pCPU {format_cpu_list(cpus)}"
        case Resize(target_kib=target_kib):
            return f"set {name} to {mib(target_kib)} MiB"
        case SetStatsPeriod(period_s=period_s):
            return f"let {name} report every {period_s} s"


def _stamp(tick: Tick) -> str:
    moment = dt.datetime.fromtimestamp(tick.snapshot.wall_s).astimezone()
    return f"{moment:%H:%M:%S} {tick.role} {tick.policy} #{tick.number}"


def _cpu_summary(estimate: CpuEstimate) -> str:
    loads: dict[int, float] = defaultdict(float, dict.fromkeys(estimate.capacity, 0.0))
    floating = 0.0
    for vcpu in estimate.vcpus:
        if vcpu.home is None:
            floating += vcpu.demand_ratio
        else:
            loads[vcpu.home] += vcpu.demand_ratio
    wanted = " ".join(f"{pcpu}:{load:.2f}" for pcpu, load in sorted(loads.items())[:_ROWS])
    more = " …" if len(loads) > _ROWS else ""
    unpinned = f", unpinned {floating:.2f}" if floating else ""
    return f"{len(estimate.vcpus)} vCPUs want of pCPU {wanted}{more}{unpinned}"


def _cpu_table(estimate: CpuEstimate) -> list[str]:
    header = ("guest/vCPU", "on", "run", "wait", "wants", "")
    rows = [_cpu_row(vcpu) for vcpu in estimate.vcpus[:_ROWS]]
    return table(header, rows) + _more(len(estimate.vcpus))


def _cpu_row(vcpu: VcpuEstimate) -> tuple[str, ...]:
    wait = "?" if vcpu.wait_ratio is None else f"{vcpu.wait_ratio:.2f}"
    return (
        f"{vcpu.guest_name}/{vcpu.key.vcpu}",
        format_cpu_list(vcpu.affinity),
        f"{vcpu.run_ratio:.2f}",
        wait,
        f"{vcpu.demand_ratio:.2f}",
        vcpu.fixed or "",
    )


def _memory_summary(estimate: MemoryEstimate) -> str:
    host = estimate.host
    return (
        f"host {mib(host.available_kib)} of {mib(host.total_kib)} MiB available, "
        f"budget {mib(estimate.budget_kib)}, reserve {mib(estimate.reserve_kib)}"
    )


def _memory_table(estimate: MemoryEstimate) -> list[str]:
    header = ("guest (MiB)", "has", "target", "used", "usable", "needs", "max", "")
    rows = [_memory_row(guest) for guest in estimate.guests[:_ROWS]]
    return table(header, rows) + _more(len(estimate.guests))


def _memory_row(guest: GuestMemoryEstimate) -> tuple[str, ...]:
    sizes = (
        guest.actual_kib,
        guest.target_kib,
        guest.used_kib,
        guest.usable_kib,
        guest.hard_kib,
        guest.maximum_kib,
    )
    return (guest.guest_name, *(mib(size) for size in sizes), guest.fixed or "")


def _more(count: int) -> list[str]:
    return [f"… and {count - _ROWS} more"] if count > _ROWS else []
