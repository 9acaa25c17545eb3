"""``virt-balance demo``: four real guests, badly placed and badly provided, served for a minute.

All vCPUs start on pCPU 0. ``hungry`` wants more memory than it has, ``lazy`` sits on memory it
does not use, and together they may never have more than at the start. First they are watched
without us, then with both programs; the summary compares the two.
"""

import argparse
import contextlib
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from virtbalance.cli.arguments import period_s
from virtbalance.cli.assembly import assembled, connected, role_maker, serve
from virtbalance.cli.errors import CommandError
from virtbalance.control.hypervisor import Hypervisor
from virtbalance.control.loop import Loop
from virtbalance.control.settings import CpuSettings, MemorySettings
from virtbalance.model.snapshot import Scope, Snapshot
from virtbalance.ui.action_lines import ActionLines
from virtbalance.ui.demo import Measured, progress_line, summary_lines

if TYPE_CHECKING:
    from virtbalance.lab import Guest, Report

_MAXIMUM_MIB = 768
_SMALL_MIB = 288
_MINIMUM_MIB = 160
_WANTED_MIB = 480
_RATE_MIB_S = 16.0
_BUSY_COUNT = 2_000_000
"""Counts between two sleeps of 400 us: busy most of the time on any host."""
_SETTLE_S = 4.0
_BEFORE_S = 8.0
_STATUS_EVERY_S = 10.0
_FEED_EVERY_S = 1.0
_SENSE_S = 2.0
_REST_S = 60.0
_TOLERANCE_KIB = 8 * 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "--seconds",
        type=period_s,
        default=60.0,
        metavar="S",
        help="how long the programs serve the guests (default: 60)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the demo; return the exit code."""
    from virtbalance.lab import GuestSpec, Lab, LabError

    on_pcpu_0 = (frozenset({0}),)
    specs = [
        GuestSpec(name=name, maximum_mib=_MAXIMUM_MIB, current_mib=current_mib, pins=on_pcpu_0)
        for name, current_mib in (
            ("web", _SMALL_MIB),
            ("build", _SMALL_MIB),
            ("hungry", _SMALL_MIB),
            ("lazy", _MAXIMUM_MIB),
        )
    ]
    with _own_directories():
        try:
            with Lab.embedded(say=_say) as lab:
                _say("starting four guests, all vCPUs on pCPU 0")
                guests = lab.start(specs)
                sizes_mib = {spec.name: spec.start_mib for spec in specs}
                _demonstrate(lab.uri, guests, sizes_mib, arguments.seconds)
        except LabError as error:
            raise CommandError(str(error)) from error
    _say("all guests ended, nothing is left behind")
    return 0


def _demonstrate(
    uri: str, guests: Sequence["Guest"], sizes_mib: Mapping[str, int], seconds: float
) -> None:
    from virtbalance.lab import CountAndSleep

    hungry = next(guest for guest in guests if guest.name == "hungry")
    with connected(uri, dry_run=False) as hypervisor:
        watch = _Watch(hypervisor, guests)
        watch.await_sizes(sizes_mib)  # first: what it has filled no balloon can take
        _feed(hungry)
        for guest in guests:
            guest.load_cpu(0, CountAndSleep(_BUSY_COUNT))
        time.sleep(_SETTLE_S)
        watch.measure()
        time.sleep(_BEFORE_S)
        before = watch.measure()
        budget_mib = sum(sizes_mib.values())
        _say(f"without us: {progress_line(before)}")
        _say(f"both programs serve them for {seconds:.0f} s; together at most {budget_mib} MiB")
        after = _serve(uri, watch, budget_mib, seconds, hungry)
    wanted_kib = {"hungry": _WANTED_MIB * 1024}
    print("\n".join(["", *summary_lines(before, after, wanted_kib), ""]), flush=True)


def _feed(hungry: "Guest") -> None:
    """Let it take memory, again if it had to stop for want of room."""
    if hungry.report().memory.outcome in ("none", "floor"):
        hungry.allocate(_WANTED_MIB, _RATE_MIB_S)


def _serve(uri: str, watch: "_Watch", budget_mib: int, seconds: float, hungry: "Guest") -> Measured:
    """Run both programs; return what was measured while they ran, at the end."""
    memory = MemorySettings(period_s=1.0)
    need = replace(memory.demand.need, minimum_kib=_MINIMUM_MIB * 1024)
    budget = replace(memory.demand.budget, budget_max_kib=budget_mib * 1024)
    memory = replace(memory, demand=replace(memory.demand, need=need, budget=budget))
    lines = ActionLines(sys.stdout)
    with contextlib.ExitStack() as held:
        loops = []
        # one pCPU for each vCPU shows what is done; the default would leave it to the kernel
        cpu = CpuSettings(period_s=1.0, policies={"balance": {"pin": "cpu"}})
        for settings in (cpu, memory):
            hypervisor = held.enter_context(connected(uri, dry_run=False))
            loop = assembled(
                hypervisor,
                role_maker(settings)(hypervisor.host_id),
                settings,
                [lines],
                uri=uri,
                dry_run=False,
            )
            loops.append(held.enter_context(loop))
        spectator = _Spectator(watch, loops, seconds, hungry)
        spectator.start()
        serve(loops)
    if not spectator.finished():
        raise KeyboardInterrupt
    return spectator.last


class _Spectator(threading.Thread):
    """Measures now and then while the loops run, and ends them when the time is over."""

    def __init__(
        self, watch: "_Watch", loops: Sequence[Loop], seconds: float, hungry: "Guest"
    ) -> None:
        super().__init__(name="spectator", daemon=True)
        self._watch = watch
        self._loops = loops
        self._seconds = seconds
        self._hungry = hungry
        self._loops_ended = threading.Event()
        self._finished = False
        self.last = watch.measure()

    def run(self) -> None:
        """Watch until the end."""
        start_s = time.monotonic()
        status_s = start_s
        while (now_s := time.monotonic()) < start_s + self._seconds:
            if now_s >= status_s + _STATUS_EVERY_S:
                status_s += _STATUS_EVERY_S
                self.last = self._watch.measure()
                _say(f"{now_s - start_s:3.0f} s: {progress_line(self.last)}")
            _feed(self._hungry)
            if self._loops_ended.wait(_FEED_EVERY_S):
                return
        self.last = self._watch.measure()
        self._finished = True
        for loop in self._loops:
            loop.stop()

    def finished(self) -> bool:
        """Return whether it watched to the end; to be called when the loops have ended."""
        self._loops_ended.set()
        self.join()
        return self._finished


class _Watch:
    """Measures what guests and host have done since the last time."""

    def __init__(self, hypervisor: Hypervisor, guests: Sequence["Guest"]) -> None:
        self._hypervisor = hypervisor
        self._guests = guests
        self._former = self._look()

    def measure(self) -> Measured:
        """Return rates since the last call, and sizes now."""
        former, self._former = self._former, self._look()
        snapshot, reports = self._former
        iterations_per_s = {}
        for guest in self._guests:
            old, new = former[1][guest.name], reports[guest.name]
            done = new.iterations - old.iterations
            iterations_per_s[guest.name] = done * 1e9 / (new.monotonic_ns - old.monotonic_ns)
        return Measured(
            iterations_per_s,
            {g.name: g.memory.actual_kib for g in snapshot.guests if g.memory},
            {name: report.memory.held_kib for name, report in reports.items()},
            _busy_ratios(former[0], snapshot),
        )

    def await_sizes(self, sizes_mib: Mapping[str, int]) -> None:
        """Wait until every balloon has its size: right after boot they are still moving."""
        end_s = time.monotonic() + _REST_S
        while time.monotonic() < end_s:
            moving = [
                name
                for name, kib in self.measure().balloon_kib.items()
                if abs(kib - sizes_mib[name] * 1024) > _TOLERANCE_KIB
            ]
            if not moving:
                return
            time.sleep(0.5)
        raise CommandError(f"the balloons of {', '.join(moving)} do not come to rest")

    def _look(self) -> tuple[Snapshot, dict[str, "Report"]]:
        snapshot = self._hypervisor.sample(Scope.CPU | Scope.MEMORY, _SENSE_S)
        return snapshot, {guest.name: guest.report() for guest in self._guests}


def _busy_ratios(former: Snapshot, latter: Snapshot) -> dict[int, float]:
    busy_ns = {pcpu.id: pcpu.busy_ns for pcpu in former.pcpus}
    elapsed_ns = latter.taken_ns - former.taken_ns
    return {
        pcpu.id: min(1.0, (pcpu.busy_ns - busy_ns[pcpu.id]) / elapsed_ns)
        for pcpu in latter.pcpus
        if pcpu.id in busy_ns
    }


@contextlib.contextmanager
def _own_directories() -> Iterator[None]:
    """Keep journal, locks and last ticks out of the machine's own directories."""
    with tempfile.TemporaryDirectory(prefix="virt-balance-demo-") as directory:
        os.environ["VIRT_BALANCE_STATE_DIR"] = directory
        os.environ["VIRT_BALANCE_RUN_DIR"] = directory
        yield


def _say(text: str) -> None:
    print(text, flush=True)
