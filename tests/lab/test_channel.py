"""The client of the guest's channel, against a server that behaves as badly as a channel can."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from virtbalance.lab.channel import Channel
from virtbalance.lab.errors import LabError

Answer = Callable[[int, str], bytes | None]


class Server:
    """Serves one client after the other, as QEMU does, with answers the test makes up."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answer: Answer = lambda number, words: ok(number)
        self.asked: list[str] = []
        self.clients = 0
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen(1)
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            self.clients += 1
            # A client that goes away before its answer is part of what is tested.
            with contextlib.suppress(BrokenPipeError), client, client.makefile("rb") as lines:
                assert next(lines, b"\n") == b"\n"  # whatever a client before it left is ended
                for line in lines:
                    number, _, words = line.decode().strip().partition(" ")
                    self.asked.append(words)
                    said = self.answer(int(number), words)
                    if said is None:
                        break
                    client.sendall(said)


def ok(number: int, **more: object) -> bytes:
    return json.dumps({"id": number, "ok": True, **more}).encode() + b"\n"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "s")
    yield made
    made.close()


@pytest.fixture
def channel(server: Server) -> Iterator[Channel]:
    made = Channel(server.path, "g")
    yield made
    made.close()


def test_a_command_and_its_answer(server: Server, channel: Channel) -> None:
    server.answer = lambda number, words: ok(number, said=words)
    assert channel.command("cpu all hog")["said"] == "cpu all hog"
    assert channel.command("free")["said"] == "free"
    assert server.clients == 1


def test_an_answer_in_pieces(server: Server, channel: Channel) -> None:
    server.answer = lambda number, words: ok(number, much="x" * 300_000)
    assert len(channel.command("report")["much"]) == 300_000


def test_a_refusal_is_said_with_guest_and_command(server: Server, channel: Channel) -> None:
    server.answer = lambda number, words: (
        json.dumps({"id": number, "error": "no such load"}).encode() + b"\n"
    )
    with pytest.raises(LabError, match=r"guest g refused 'cpu 0 x': no such load"):
        channel.command("cpu 0 x")


def test_answers_to_others_and_half_lines_are_passed_over(server: Server, channel: Channel) -> None:
    server.answer = lambda number, words: b'ond": 1}\n[]\n' + ok(number - 1, old=1) + ok(number)
    assert "old" not in channel.command("report")


def test_an_answer_that_comes_too_late_is_not_taken_for_the_next(
    server: Server, channel: Channel
) -> None:
    def slow_once(number: int, words: str) -> bytes:
        if words == "slow":
            time.sleep(0.3)
        return ok(number, to=words)

    server.answer = slow_once
    with pytest.raises(LabError, match=r"did not answer 'slow' within 0\.1 s"):
        channel.command("slow", timeout_s=0.1)
    assert channel.command("next")["to"] == "next"


def test_a_connection_that_breaks_is_opened_again(server: Server, channel: Channel) -> None:
    server.answer = lambda number, words: None
    with pytest.raises(LabError, match="the guest has gone"):
        channel.command("report")
    server.answer = lambda number, words: ok(number)
    assert channel.command("report")["ok"]
    assert server.clients == 2


def test_close_lets_another_client_in(server: Server, channel: Channel) -> None:
    channel.command("report")
    other = Channel(server.path, "g")
    with pytest.raises(LabError, match="did not answer"):
        other.command("report", timeout_s=0.1)
    channel.close()
    assert other.command("report")["ok"]
    other.close()


def test_a_queue_of_other_clients_is_waited_out(server: Server, channel: Channel) -> None:
    others = []
    for _ in range(200):  # more than the server's queue holds
        other = socket.socket(socket.AF_UNIX)
        other.setblocking(False)
        others.append(other)
        try:
            other.connect(str(server.path))
        except BlockingIOError:
            break
    else:
        pytest.fail("the queue has no end")
    with pytest.raises(LabError, match="did not answer"):
        channel.command("report", timeout_s=0.2)
    for other in others:
        other.close()
    assert channel.command("report")["ok"]


def test_no_socket(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="No such file"):
        Channel(tmp_path / "none", "g").command("report")


def test_more_than_one_line(channel: Channel) -> None:
    with pytest.raises(LabError, match="one line"):
        channel.command("free\n2 free")


def test_threads_take_turns(server: Server, channel: Channel) -> None:
    server.answer = lambda number, words: ok(number, said=words)
    said: list[str] = []
    threads = [
        threading.Thread(target=lambda n=n: said.append(channel.command(f"w{n}")["said"]))
        for n in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(said) == sorted(f"w{n}" for n in range(20))
