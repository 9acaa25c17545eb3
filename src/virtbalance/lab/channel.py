"""Client of the workload program: commands over the guest's virtio-serial channel.

The channel is a unix socket that QEMU listens on; it serves one client at a time and keeps what
is sent before the guest is up. A command is a line with a number, the answer a JSON object with
the same number, so an answer that comes too late for one caller is not taken for the next one's.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

from virtbalance.lab.errors import LabError

if TYPE_CHECKING:
    from pathlib import Path

LONGEST_ANSWER_BYTES = 1 << 20
RETRY_S = 0.05


class Channel:
    """A connection that opens itself when needed and again after it broke. Thread-safe."""

    def __init__(self, path: Path, guest: str) -> None:
        self._path = path
        self._guest = guest
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._received = b""
        # Numbers go on across clients, lest one takes the answer another did not wait for.
        self._number = time.monotonic_ns()

    def command(self, words: str, timeout_s: float = 30.0) -> dict[str, Any]:
        """Send one command and return its answer.

        Raises LabError if the guest refuses it, has gone, or does not answer in time.
        """
        deadline = time.monotonic() + timeout_s
        with self._lock:
            try:
                answer = self._ask(words, deadline)
            except TimeoutError as error:
                self._drop()
                raise LabError(
                    f"guest {self._guest} did not answer '{words}' within {timeout_s:g} s"
                ) from error
            except OSError as error:
                self._drop()
                raise LabError(f"guest {self._guest}: {self._path}: {error}") from error
        if "error" in answer:
            raise LabError(f"guest {self._guest} refused '{words}': {answer['error']}")
        return answer

    def close(self) -> None:
        """Close the connection; the next command opens it again."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        self._received = b""

    def _ask(self, words: str, deadline: float) -> dict[str, Any]:
        if "\n" in words:
            raise LabError("a command is one line")
        self._number += 1
        connection = self._connected(deadline)
        connection.settimeout(_left_s(deadline))
        connection.sendall(f"{self._number} {words}\n".encode())
        while True:
            answer = self._answer(connection, deadline)
            if answer.get("id") == self._number:
                return answer

    def _connected(self, deadline: float) -> socket.socket:
        while self._socket is None:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.settimeout(_left_s(deadline))
            try:
                connection.connect(str(self._path))
                connection.sendall(b"\n")  # ends the half line a client before us may have left
            except BlockingIOError:  # others are waiting to be served
                connection.close()
                time.sleep(RETRY_S)
            except OSError:
                connection.close()
                raise
            else:
                self._socket = connection
        return self._socket

    def _answer(self, connection: socket.socket, deadline: float) -> dict[str, Any]:
        while b"\n" not in self._received:
            connection.settimeout(_left_s(deadline))
            piece = connection.recv(65536)
            if not piece:
                raise ConnectionResetError("the guest has gone")
            self._received += piece
            if len(self._received) > LONGEST_ANSWER_BYTES:
                raise ConnectionAbortedError("the guest sends without an end")
        line, _, self._received = self._received.partition(b"\n")
        try:
            answer = json.loads(line)
        except ValueError:
            return {}  # the rest of an answer to a client before us
        return answer if isinstance(answer, dict) else {}


def _left_s(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
