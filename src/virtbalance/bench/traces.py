"""Recorded loads: the packaged excerpt, the public traces where they are, and a user's own CSV.

A user's CSV (may be gzipped) has one row a guest: ``guest``, optionally ``vcpus`` and
``maximum_mib``, then one column a step. For CPU scenarios a value is the share of the guest's
vCPUs in use in % (0 to 100); for memory scenarios memory in use in MiB. Empty cells repeat the
value before.

The full traces are not part of the package: the directory that ``VIRT_BALANCE_TRACES`` names (or
``--traces``) has them, see docs/bench.md.
"""

import csv
import gzip
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Literal

from virtbalance.control.config import ConfigError

DIRECTORY_VARIABLE = "VIRT_BALANCE_TRACES"
What = Literal["cpu", "memory"]

_PLANETLAB = "planetlab-2011-cpu.csv.gz"
_BITBRAINS = "bitbrains-rnd-2013-08-week1-{}.csv{}"
_NO_VALUES = frozenset({"guest", "vm", "day", "vcpus", "maximum_mib"})


@dataclass(frozen=True, slots=True)
class RecordedGuest:
    """One guest of a trace."""

    vcpus: int
    values: tuple[float, ...]
    """CPU: pCPUs of each vCPU; memory: MiB in use."""
    maximum_mib: float | None = None


@cache
def recorded(source: str, what: What) -> tuple[RecordedGuest, ...]:
    """Return all guests of a trace. Raises ``ConfigError``."""
    if source == "planetlab":
        return tuple(_rows(_public(_PLANETLAB), what))
    if source == "bitbrains":
        return tuple(_bitbrains(what))
    if source == "excerpt":
        return tuple(_excerpt(what))
    return tuple(_rows(Path(source), what))


def _public(name: str) -> Path:
    directory = os.environ.get(DIRECTORY_VARIABLE)
    if not directory:
        raise ConfigError(
            f"the trace {name} is not part of the package: name the directory that has it with"
            f" --traces or {DIRECTORY_VARIABLE}"
        )
    return Path(directory) / name


def available() -> bool:
    """Return whether the public traces are there."""
    directory = os.environ.get(DIRECTORY_VARIABLE)
    return bool(directory) and (Path(str(directory)) / _PLANETLAB).is_file()


def _rows(
    path: Path, what: What, about: Mapping[str, Mapping[str, str]] | None = None
) -> Iterator[RecordedGuest]:
    """Yield guests of a file with one row a guest; ``about`` knows more of them by name."""
    table = list(_read(path))
    if not table:
        raise ConfigError(f"{path}: no rows")
    for number, row in enumerate(table, start=2):
        known = {**row, **(about or {}).get(row.get("vm", ""), {})}
        cells = [cell for name, cell in row.items() if name not in _NO_VALUES]
        try:
            values = _filled(cells, 0.01 if what == "cpu" else 1.0)
            vcpus = int(known.get("vcpus") or 1)
            memory = known.get("maximum_mib") or known.get("mem_mib")
            maximum_mib = float(memory) if memory else None
        except ValueError as error:
            raise ConfigError(f"{path}:{number}: {error}") from error
        if vcpus > 0 and values and (maximum_mib or what == "cpu"):
            yield RecordedGuest(vcpus, values, maximum_mib)


def _filled(cells: Sequence[str], unit: float) -> tuple[float, ...]:
    """Return the cells' values in other units; an empty cell repeats the one before."""
    values: list[float] = []
    for cell in cells:
        if cell:
            values.append(float(cell) * unit)
        elif values:
            values.append(values[-1])
    return tuple(values)


def _bitbrains(what: What) -> Iterator[RecordedGuest]:
    about = {row["vm"]: row for row in _read(_public(_BITBRAINS.format("vms", "")))}
    part = "cpu" if what == "cpu" else "mem"
    return _rows(_public(_BITBRAINS.format(part, ".gz")), what, about)


def _excerpt(what: What) -> Iterator[RecordedGuest]:
    if what == "memory":
        raise ConfigError("the packaged excerpt holds CPU use only")
    folder = Path(str(resources.files("virtbalance.bench"))) / "traces_data"
    return _rows(folder / "bitbrains-small-excerpt.csv.gz", what)


def _read(path: Path) -> Iterator[dict[str, str]]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    yield from csv.DictReader(io.StringIO(data.decode("utf-8")))
