"""``virt-balance status``: what the running programs do and see, from their last ticks."""

import argparse
import contextlib
import fcntl
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from virtbalance.cli.errors import CommandError
from virtbalance.control.paths import run_directory
from virtbalance.ui.status import status_lines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--json", action="store_true", help="the last ticks as one JSON array")


def run(arguments: argparse.Namespace) -> int:
    """Print the state of every program known on this machine; exit code 1 if none is running."""
    documents = last_ticks()
    if arguments.json:
        print(json.dumps(documents, indent=1))
    elif not documents:
        print("no program of virt-balance has run since the machine was started")
    else:
        with of_this_version():
            print("\n\n".join("\n".join(status_lines(document)) for document in documents))
    return 0 if any(document["running"] for document in documents) else 1


@contextlib.contextmanager
def of_this_version() -> Iterator[None]:
    """Turn what a last tick lacks into ``CommandError``: another version wrote it."""
    try:
        yield
    except KeyError as error:
        why = f"the program's last tick has no {error}: it is of another version"
        raise CommandError(f"{why}; restart it, or explain a guest with --fresh") from error


def last_ticks() -> list[dict[str, Any]]:
    """Return the last-tick document of every program known on this machine.

    Each has ``host``, ``role``, ``running`` and ``age_s`` besides what the program wrote.
    """
    return [read_last_tick(path) for path in sorted(run_directory().glob("*/*.json"))]


def read_last_tick(path: Path) -> dict[str, Any]:
    """Return one last-tick document (see ``last_ticks``). Raises ``CommandError``."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        age_s = time.time() - path.stat().st_mtime
    except (OSError, ValueError) as error:
        raise CommandError(f"{path}: {error}") from error
    assert isinstance(document, dict)
    about = {
        "host": path.parent.name,
        "role": path.stem,
        "running": _held(path.with_suffix(".lock")),
    }
    return {**about, "age_s": round(age_s, 1), **document}


def _held(lock: Path) -> bool:
    """Return whether some process holds an instance lock."""
    try:
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
