"""A program of ours as its user runs it: a process, watched through ``--json``."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

BIN = Path(sys.executable).parent
Document = dict[str, Any]


class Program:
    """Starts a command, collects the objects it prints, and ends it at the end of the block."""

    def __init__(self, directory: Path, *words: str) -> None:
        self.documents: list[Document] = []
        self._process = subprocess.Popen(
            [str(BIN / words[0]), *words[1:], "--json"],
            env={
                **os.environ,
                "VIRT_BALANCE_STATE_DIR": str(directory / "state"),
                "VIRT_BALANCE_RUN_DIR": str(directory / "run"),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def kill(self) -> None:
        """``kill -9``."""
        self._process.kill()
        self._process.wait()

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end; return its exit code."""
        self._process.send_signal(number)
        return self.wait()

    def wait(self, timeout_s: float = 30.0) -> int:
        """Wait for its end; return its exit code, having checked that it complained of nothing."""
        code = self._process.wait(timeout_s)
        self._reader.join(5.0)
        assert self._process.stderr is not None
        assert "Traceback" not in self._process.stderr.read()
        return code

    def until(self, found: Callable[[Document], object], timeout_s: float = 30.0) -> Document:
        """Wait for an object, from now on or before; return it."""
        end_s = time.monotonic() + timeout_s
        seen = 0
        while time.monotonic() < end_s:
            while seen < len(self.documents):
                seen += 1
                if found(self.documents[seen - 1]):
                    return self.documents[seen - 1]
            time.sleep(0.02)
        raise AssertionError(f"not seen within {timeout_s} s; the last: {self.documents[-1:]}")

    def more_ticks(self, count: int, timeout_s: float = 30.0) -> list[Document]:
        """Wait for so many further ticks; return them."""
        before = len(self.ticks())
        self.until(lambda _: len(self.ticks()) >= before + count, timeout_s)
        return self.ticks()[before : before + count]

    def ticks(self) -> list[Document]:
        """Return the ticks seen so far."""
        return [document for document in self.documents if "tick" in document]

    def notices(self) -> list[str]:
        """Return the kinds of all notices so far."""
        return [d["notice"]["kind"] for d in self.documents if "notice" in d]

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.documents.append(json.loads(line))


def pins(tick: Document) -> list[Document]:
    """Return the pins of a tick."""
    return [action for action in tick.get("actions", []) if action["action"] == "pin"]


def longest_gap_s(ticks: list[Document]) -> float:
    """Return the longest time between two of these ticks."""
    times_s: list[float] = [tick["monotonic_s"] for tick in ticks]
    return max(later - former for former, later in pairwise(times_s))
