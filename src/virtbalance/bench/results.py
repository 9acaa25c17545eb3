"""Results as files: one JSON object a run, written when it is finished, and read back.

``DIR/SCENARIO__POLICY__sSEED.json`` holds the result with its manifest, ``*.series.json.gz`` beside
it what the report draws. A run whose file is there with the same manifest key is not run again.
"""

import gzip
import hashlib
import json
import platform
import sys
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import virtbalance
from virtbalance.bench.criteria import Judged
from virtbalance.bench.schema import Scenario
from virtbalance.control.files import write_atomically

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Job:
    """One run to be done."""

    scenario: Scenario
    policy: str
    seed: int
    on: str = "sim"

    @property
    def name(self) -> str:
        """A name that is safe for files and different for every job of a set."""
        return _file_name(self.scenario.name, self.policy, self.on, self.seed)


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a run."""

    scenario: str
    on: str
    policy: str
    seed: int
    passed: bool | None
    metrics: Mapping[str, float | None]
    role: str
    title: str = ""
    criteria: tuple[Judged, ...] = ()
    error: str | None = None
    """Why the run came to nothing, or the first failure of the policy."""
    timing: Mapping[str, float] = field(default_factory=dict)
    """Wall times; these alone differ from machine to machine."""
    manifest: Mapping[str, Any] = field(default_factory=dict)


def manifest(job: Job) -> dict[str, Any]:
    """Return what must be known to repeat a run."""
    return {
        "format": FORMAT,
        "key": job_key(job),
        "version": virtbalance.__version__,
        "python": platform.python_version(),
        "numpy": metadata.version("numpy"),
        "host": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "seed": job.seed,
        "scenario_sha256": scenario_hash(job.scenario),
        "settings": dict(job.scenario.settings),
        "arguments": sys.argv[1:],
    }


def scenario_hash(scenario: Scenario) -> str:
    """Return a digest of everything in a scenario that can change its outcome."""
    text = json.dumps(asdict(scenario), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def job_key(job: Job) -> str:
    """Return a digest of a job; a policy from a file counts by its content."""
    parts = [
        virtbalance.__version__,
        scenario_hash(job.scenario),
        job.policy,
        str(job.seed),
        job.on,
    ]
    file = Path(job.policy.rpartition(":")[0])
    if file.suffix == ".py" and file.is_file():
        parts.append(hashlib.sha256(file.read_bytes()).hexdigest())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def as_json(result: Result) -> dict[str, Any]:
    """Return the object ``--json`` prints."""
    return asdict(result)


def write(directory: Path, job: Job, result: Result, series: Mapping[str, Any] | None) -> None:
    """Write a finished run. Raises ``OSError``."""
    directory.mkdir(parents=True, exist_ok=True)
    if series is not None:
        data = json.dumps(series, separators=(",", ":")).encode()
        (directory / f"{job.name}.series.json.gz").write_bytes(gzip.compress(data, mtime=0))
    text = json.dumps(as_json(result), indent=1) + "\n"
    write_atomically(directory / f"{job.name}.json", text, durable=False)


def finished(directory: Path, job: Job) -> Result | None:
    """Return the result of an earlier run of this very job; one that came to nothing is none.

    Neither is a file that is damaged. Raises ``ResultsError`` for one of another format, which is
    not to be overwritten.
    """
    try:
        result = read(directory / f"{job.name}.json")
    except (FileNotFoundError, NotADirectoryError, DamagedError):
        return None
    return result if result.metrics and result.manifest.get("key") == job_key(job) else None


class ResultsError(Exception):
    """Results can't be read; the message names the file or directory."""


class DamagedError(ResultsError):
    """A file holds no result of the bench."""


def read(path: Path) -> Result:
    """Return a result read from its file.

    Raises ``OSError``, ``DamagedError`` if it holds none, ``ResultsError`` for another format.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        found = document["manifest"]["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{path} is no result of the bench: {error}") from error
    if found != FORMAT:
        raise ResultsError(f"{path} has format {found}, not {FORMAT}")
    try:
        document["criteria"] = tuple(Judged(**one) for one in document["criteria"])
        return Result(**document)
    except (KeyError, TypeError) as error:
        raise DamagedError(f"{path} is no result of the bench: {error}") from error


def read_all(directory: Path) -> tuple[Result, ...]:
    """Return all results in a directory, sorted. Raises ``ResultsError`` if there are none."""
    paths = sorted(path for path in directory.glob("*.json") if "__" in path.name)
    if not paths:
        what = "no results" if directory.is_dir() else "no such directory"
        raise ResultsError(f"{directory}: {what}")
    return tuple(read(path) for path in paths)


def read_series(directory: Path, result: Result) -> dict[str, Any] | None:
    """Return what the report draws of a run; ``None`` if it was not kept.

    Raises ``ResultsError`` if the file is damaged.
    """
    name = _file_name(result.scenario, result.policy, result.on, result.seed)
    path = directory / f"{name}.series.json.gz"
    if not path.is_file():
        return None
    try:
        series: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()))
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise ResultsError(f"{path} is damaged: {error}") from error
    return series


def _file_name(scenario: str, policy: str, on: str, seed: int) -> str:
    scenario, policy = (text.replace("/", "_").replace(":", "_") for text in (scenario, policy))
    return f"{scenario}__{policy}__{on}{seed}"
