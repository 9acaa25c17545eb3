"""Many runs: in worker processes, each result written when it is there, none lost or run twice.

A worker tells the simulated time it has reached; one that falls silent for too long has a policy
that does not answer, and is ended. Its run counts as failed and a new worker goes on with the rest.
"""

import contextlib
import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any

from virtbalance.bench.results import Job, Result, finished, manifest, write
from virtbalance.bench.runner import Done, run
from virtbalance.control.config import ConfigError
from virtbalance.control.policies import PolicyError, describe_failure

_TELL_EVERY_S = 0.2
_KILLED_S = 10.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long workers are waited for."""

    silence_s: float
    """May say nothing before the policy is taken for hung."""
    end_s: float
    """May take to end before it is killed."""


SIMULATED = Patience(silence_s=60.0, end_s=10.0)
REAL_GUESTS = Patience(silence_s=600.0, end_s=120.0)
"""Guests take time to start, and one that is just being started can only be ended once it is: a
worker that is killed meanwhile leaves it running."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far all runs are."""

    done: int
    total: int
    running: tuple[tuple[str, float], ...]
    """Job names and the share of their time that has passed."""


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """How runs are made."""

    workers: int = 1
    directory: Path | None = None
    patience: Patience = SIMULATED


def run_all(
    jobs: Sequence[Job],
    settings: PoolSettings,
    tell: Callable[[Progress], object] = lambda _: None,
) -> Iterator[Result]:
    """Yield results as they are finished; those of an earlier call come first.

    Stopping the iteration ends the workers.
    """
    rest = []
    for job in jobs:
        former = finished(settings.directory, job) if settings.directory else None
        if former is None:
            rest.append(job)
        else:
            yield former
    pool = _Pool(rest, settings, tell, done=len(jobs) - len(rest))
    with contextlib.closing(pool):
        yield from pool.results()


@dataclass(slots=True)
class _Worker:
    """One process and what it is doing."""

    process: BaseProcess
    pipe: Connection
    job: Job | None = None
    begun: bool = False
    """Whether it has said so: a new process takes its time to import everything."""
    heard_s: float = field(default_factory=time.monotonic)
    share: float = 0.0


class _Pool:
    def __init__(
        self,
        jobs: Sequence[Job],
        settings: PoolSettings,
        tell: Callable[[Progress], object],
        done: int,
    ) -> None:
        self._waiting = list(reversed(jobs))
        self._settings = settings
        self._tell = tell
        self._done = done
        self._total = done + len(jobs)
        self._workers = [_start() for _ in range(min(settings.workers, len(jobs)))]

    def results(self) -> Iterator[Result]:
        for worker in self._workers:
            self._give(worker)
        while any(worker.job for worker in self._workers):
            busy = {worker.pipe: worker for worker in self._workers if worker.job}
            for pipe in wait(list(busy), timeout=_TELL_EVERY_S):
                assert isinstance(pipe, Connection)
                result = self._hear(busy[pipe])
                if result is not None:
                    yield self._finish(busy[pipe], result)
            for at, worker in enumerate(self._workers):
                if worker.job and self._is_silent(worker):
                    yield self._replace(at, worker, self._silence(worker.job))
            self._say()

    def close(self) -> None:
        """End all workers."""
        for worker in self._workers:
            self._end(worker)

    def _end(self, worker: _Worker) -> None:
        worker.process.terminate()
        worker.process.join(self._settings.patience.end_s)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join(_KILLED_S)
        worker.pipe.close()

    def _hear(self, worker: _Worker) -> Result | None:
        worker.heard_s = time.monotonic()
        worker.begun = True
        try:
            message = worker.pipe.recv()
        except (EOFError, OSError):
            assert worker.job is not None
            return self._kept(
                worker.job, _failure(worker.job, "the worker process ended unexpectedly")
            )
        if isinstance(message, float):
            worker.share = message
            return None
        assert worker.job is not None
        if isinstance(message, Done):
            return self._kept(worker.job, message.result, message.series)
        return self._kept(worker.job, _failure(worker.job, str(message)))

    def _kept(self, job: Job, result: Result, series: Mapping[str, Any] | None = None) -> Result:
        if self._settings.directory:
            write(self._settings.directory, job, result, series)
        return result

    def _finish(self, worker: _Worker, result: Result) -> Result:
        self._done += 1
        worker.job = None
        if not worker.process.is_alive():
            self._workers[self._workers.index(worker)] = worker = _start()
        self._give(worker)
        return result

    def _replace(self, at: int, worker: _Worker, result: Result) -> Result:
        assert worker.job is not None
        self._kept(worker.job, result)
        self._end(worker)
        self._workers[at] = _start()
        self._done += 1
        self._give(self._workers[at])
        return result

    def _is_silent(self, worker: _Worker) -> bool:
        """Say whether nothing has come for too long; what lies in the pipe unread has come."""
        long_ago = time.monotonic() - worker.heard_s > self._settings.patience.silence_s
        return worker.begun and long_ago and not worker.pipe.poll()

    def _silence(self, job: Job) -> Result:
        text = f"policy {job.policy} did not answer within {self._settings.patience.silence_s:g} s"
        return _failure(job, text)

    def _give(self, worker: _Worker) -> None:
        if self._waiting:
            worker.job, worker.begun, worker.share = self._waiting.pop(), False, 0.0
            worker.heard_s = time.monotonic()
            worker.pipe.send(worker.job)

    def _say(self) -> None:
        running = tuple((w.job.name, w.share) for w in self._workers if w.job)
        self._tell(Progress(self._done, self._total, running))


def _failure(job: Job, text: str) -> Result:
    """Return the result of a run that came to nothing."""
    return Result(
        scenario=job.scenario.name,
        on=job.on,
        policy=job.policy,
        seed=job.seed,
        passed=False,
        metrics={},
        role=job.scenario.role,
        title=job.scenario.title,
        error=text,
        manifest=manifest(job),
    )


def _start() -> _Worker:
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs,), daemon=True)
    with _no_interrupts():
        process.start()
    theirs.close()
    return _Worker(process, mine)


@contextlib.contextmanager
def _no_interrupts() -> Iterator[None]:
    """Put off what a terminal sends; a process that is started meanwhile does not get it either."""
    late: list[int] = []
    former = {n: signal.signal(n, lambda number, _: late.append(number)) for n in _TERMINALS}
    signal.pthread_sigmask(signal.SIG_BLOCK, _TERMINALS)  # what a new process inherits
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _TERMINALS)
        for number, handler in former.items():
            signal.signal(number, handler)
        for one in late:
            signal.raise_signal(one)


def _work(pipe: Connection) -> None:
    """Do jobs until ended, or until nobody wants them: the main function of a worker process."""
    for number in _TERMINALS:  # the parent decides what they mean
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _TERMINALS)
    signal.signal(signal.SIGTERM, _leave)  # by unwinding, so that real guests are ended
    sys.stdout = sys.stderr  # results are the parent's to print, whatever a policy says
    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):
        while True:
            job: Job = pipe.recv()
            pipe.send(0.0)
            pipe.send(_done(job, pipe))


_TERMINALS = frozenset({signal.SIGINT, signal.SIGHUP})
"""Signals that a terminal sends to every process in its foreground."""


def _leave(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001 - signal's signature
    raise KeyboardInterrupt


def _done(job: Job, pipe: Connection) -> Any:
    """Return what came of a job, or the text of what prevented it."""
    said_s = 0.0

    def progress(now_s: float) -> None:
        nonlocal said_s
        if time.monotonic() - said_s > _TELL_EVERY_S:
            said_s = time.monotonic()
            pipe.send(min(1.0, now_s / job.scenario.duration_s))

    try:
        return run(job, progress)
    except (ConfigError, PolicyError) as error:
        return str(error)
    except Exception as error:  # a simulator's broken law, a policy's doing: the other runs go on
        return describe_failure(error)
