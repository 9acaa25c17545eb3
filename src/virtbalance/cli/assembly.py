"""Putting a program together and running it: connection, role, journal, observers, signals.

The loops run in threads of their own; the main thread makes their decisions (see
``control.deadline``) and takes signals. A first SIGINT or SIGTERM, or a terminal that is closed,
ends the loops in order. A second one ends the process at once: the next start then puts guests
back from the journal.
"""

import argparse
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, TextIO

from virtbalance.cli.errors import CommandError, UsageError
from virtbalance.cli.signals import ending_signals, let_the_next_kill
from virtbalance.control.clock import SystemClock
from virtbalance.control.config import ConfigError, check_policy_tables, policy_config
from virtbalance.control.deadline import MainThreadDecider
from virtbalance.control.hypervisor import Hypervisor
from virtbalance.control.instance import AlreadyRunningError, InstanceLock
from virtbalance.control.journal import Journal, JournalError
from virtbalance.control.loop import Loop
from virtbalance.control.observers import DetachedObserver, Observer, TextOutput
from virtbalance.control.paths import run_directory, state_directory
from virtbalance.control.policies import PolicyError, load_policy_class, make_policy, policy_names
from virtbalance.control.reservations import Reservations
from virtbalance.control.role import Role
from virtbalance.control.roles import make_role
from virtbalance.control.settings import CpuSettings, MemorySettings, loop_settings, watching
from virtbalance.model.errors import HypervisorDeniedError, HypervisorError
from virtbalance.model.guest import RoleName
from virtbalance.model.tick import Event, Tick
from virtbalance.telemetry.json_lines import JsonLines
from virtbalance.telemetry.last_tick import LastTick, last_tick_path
from virtbalance.ui.action_lines import ActionLines
from virtbalance.ui.tick_table import TickTable

if TYPE_CHECKING:
    from virtbalance.hypervisor import LibvirtHypervisor

_DRAIN_S = 5.0

ProgramSettings = CpuSettings | MemorySettings


def run_programs(
    uri: str | None, programs: Sequence[ProgramSettings], arguments: argparse.Namespace
) -> int:
    """Run programs side by side until stopped; return the exit code.

    Raises ``UsageError`` and ``CommandError`` before anything is changed.
    """
    makers = [role_maker(settings) for settings in programs]
    display = _display(arguments, _Output(sys.stdout))
    with contextlib.ExitStack() as held:
        held.enter_context(_policies_on_stderr())
        loops = []
        for settings, made_for in zip(programs, makers, strict=True):
            hypervisor = held.enter_context(connected(uri, dry_run=arguments.dry_run))
            role = made_for(hypervisor.host_id)
            loop = assembled(
                hypervisor,
                role,
                settings,
                [display(role.name)],
                uri=uri or "",
                dry_run=arguments.dry_run,
                ticks=arguments.ticks,
            )
            loops.append(held.enter_context(loop))
        return 0 if serve(loops) else 1


def _display(arguments: argparse.Namespace, output: TextOutput) -> Callable[[RoleName], Observer]:
    """Return what makes the observer that shows a role's ticks."""
    if arguments.json:
        return partial(JsonLines, output)
    if arguments.quiet:
        lines = ActionLines(output)  # one for both programs: they notice the same of the host
        return lambda _: lines
    return partial(TickTable, output)


def role_maker(settings: ProgramSettings) -> Callable[[str], Role]:
    """Return what makes the role, with its policy, for a host of this id.

    Raises ``UsageError`` if the policy can't be had.
    """
    role = RoleName.CPU if isinstance(settings, CpuSettings) else RoleName.MEMORY
    tables = f"{role}.policies"
    try:
        with _policies_on_stderr():
            policy_class = load_policy_class(role, settings.policy)
            policy = make_policy(policy_class)
        check_policy_tables(settings.policies, (*policy_names(role), policy_class.name), tables)
        values = settings.policies.get(policy_class.name, {})
        config = policy_config(policy_class, values, f"{tables}.{policy_class.name}")
    except (PolicyError, ConfigError) as error:
        raise UsageError(str(error)) from error
    return lambda host_id: make_role(
        settings, policy, config, Reservations(run_directory() / host_id).current
    )


@contextlib.contextmanager
def connected(uri: str | None, *, dry_run: bool) -> Iterator["LibvirtHypervisor"]:
    """Connect to libvirt, reading only for a dry run. Raises ``CommandError``."""
    from virtbalance.hypervisor import connect

    try:
        hypervisor = connect(uri, read_only=dry_run)
    except HypervisorDeniedError as error:
        hint = "" if dry_run else " (reading is enough for --dry-run)"
        raise CommandError(f"{error}{hint}") from error
    except HypervisorError as error:
        raise CommandError(str(error)) from error
    try:
        yield hypervisor
    finally:
        hypervisor.close()


@contextlib.contextmanager
def assembled(
    hypervisor: Hypervisor,
    role: Role,
    settings: ProgramSettings,
    observers: Sequence[Observer],
    *,
    uri: str,
    dry_run: bool,
    ticks: int | None = None,
) -> Iterator[Loop]:
    """Make a role's loop, as the only one of its kind on the host unless it is a dry run.

    A dry run beside a running program leaves that one's last tick alone.
    """
    host_directory = run_directory() / hypervisor.host_id
    try:
        lock = InstanceLock(host_directory / f"{role.name}.lock", f"the {role.name} program")
    except AlreadyRunningError as error:
        if not dry_run:
            raise CommandError(str(error)) from error
        lock = None
    except OSError as error:
        raise CommandError(f"{error.filename}: {error.strerror}") from error
    if lock:
        path = last_tick_path(run_directory(), hypervisor.host_id, role.name)
        observers = [*observers, LastTick(path, uri, dry_run=dry_run)]
    detached = [DetachedObserver(observer) for observer in observers]
    journal = Journal(state_directory() / hypervisor.host_id, hypervisor.boot_id)
    try:
        yield Loop(
            hypervisor,
            role,
            loop_settings(settings, ticks),
            clock=SystemClock(),
            decider=_DECIDER,
            journal=None if dry_run else journal,
            observers=detached,
        )
    finally:
        for observer in detached:
            observer.finish(_DRAIN_S)
        if lock:
            lock.release()


def dry_tick(
    hypervisor: Hypervisor, role: Role, settings: ProgramSettings, watch_s: float | None = None
) -> Tick:
    """Make one decision, change nothing, and return the tick.

    It is made after one period, or after having watched for ``watch_s``.
    """
    usual = loop_settings(settings, ticks=1)
    keeper = _TickKeeper()
    observer = DetachedObserver(keeper)
    loop = Loop(
        hypervisor,
        role,
        usual if watch_s is None else watching(usual, watch_s),
        clock=SystemClock(),
        decider=_DECIDER,
        journal=None,
        observers=[observer],
    )
    with _policies_on_stderr():
        loop.run()
    observer.finish(_DRAIN_S)
    return keeper.ticks[-1]


class _TickKeeper:
    """An observer that keeps ticks."""

    def __init__(self) -> None:
        self.ticks: list[Tick] = []

    def tick(self, tick: Tick) -> None:
        self.ticks.append(tick)

    def notice(self, event: Event) -> None:
        """Take no interest in what happens between ticks."""


_DECIDER = MainThreadDecider()
"""One a process, because there is one main thread."""


def serve(loops: Sequence[Loop]) -> bool:
    """Run loops until all have ended; return whether all that was to be put back was.

    Must be called in the main thread. Raises ``CommandError`` for a loop that failed.
    """
    runs = [_Run(loop) for loop in loops]
    with _signals_stop(loops):
        waiter = threading.Thread(target=_finish_after, args=(runs,), daemon=True)
        waiter.start()
        _DECIDER.serve()
    for run in runs:
        if isinstance(run.error, (HypervisorError, JournalError)):
            raise CommandError(str(run.error)) from run.error
        if run.error is not None:
            raise run.error
    return all(run.complete for run in runs)


class _Run:
    """A loop in a thread, and how it ended."""

    def __init__(self, loop: Loop) -> None:
        self.complete = False
        self.error: BaseException | None = None
        self._loop = loop
        self._thread = threading.Thread(target=self._work, name="loop", daemon=True)
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def _work(self) -> None:
        try:
            self.complete = self._loop.run()
        except Exception as error:
            self.error = error


def _finish_after(runs: Sequence[_Run]) -> None:
    for run in runs:
        run.join()
    _DECIDER.finish()


@contextlib.contextmanager
def _signals_stop(loops: Sequence[Loop]) -> Iterator[None]:
    def stop(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001 - signal's signature
        for loop in loops:
            loop.stop()
        let_the_next_kill(signum)

    former = {number: signal.signal(number, stop) for number in ending_signals()}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _policies_on_stderr() -> contextlib.redirect_stdout[TextIO]:
    """Keep what a user's policy prints out of our output."""
    return contextlib.redirect_stdout(sys.stderr)


class _Output:
    """Standard output; when its reader is gone the programs end in order instead of going blind."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._broken = False

    def write(self, text: str) -> int:
        if not self._broken:
            try:
                return self._stream.write(text)
            except BrokenPipeError:
                self._give_up()
        return len(text)

    def flush(self) -> None:
        if not self._broken:
            try:
                self._stream.flush()
            except BrokenPipeError:
                self._give_up()

    def _give_up(self) -> None:
        self._broken = True
        # What is still buffered must have somewhere to go, or the interpreter complains at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
        os.kill(os.getpid(), signal.SIGTERM)
