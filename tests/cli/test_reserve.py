"""``reserve``: waits for a running coordinator, says who keeps what, ends with what it runs."""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_bad_input import BIN, call
from tests.cli.test_programs import HOST
from virtbalance.control.files import write_atomically
from virtbalance.control.instance import InstanceLock
from virtbalance.control.reservations import Reservations
from virtbalance.hypervisor import connect
from virtbalance.ui.reserve import obstacle_lines, progress_line

pytestmark = pytest.mark.libvirt

MIB = 1024
NONE_RUNS = (
    "virt-balance reserve: no memory_coordinator runs on this host, which would free memory\n"
)


def row(name: str, actual: int, target: int, **other: Any) -> dict[str, Any]:
    return {
        "uuid": f"u-{name}",
        "name": name,
        "actual_kib": actual * MIB,
        "target_kib": target * MIB,
        "minimum_kib": 256 * MIB,
        "fixed": None,
        **other,
    }


def tick_of(*guests: dict[str, Any], reserved: int, free: int, **other: Any) -> dict[str, Any]:
    return {
        "host": {"reserved_kib": reserved * MIB, "reserved_free_kib": free * MIB},
        "guests": list(guests),
        "desired": [],
        "actions": [],
        "amendments": [],
        "holds": [],
        **other,
    }


def test_progress_names_who_gives() -> None:
    tick = tick_of(row("a", 900, 700), row("b", 500, 499), reserved=1000, free=300)
    assert progress_line(tick) == "300 of 1000 MiB are free; giving (MiB): a 900 → 700"


def test_every_guest_has_a_reason_for_what_it_keeps() -> None:
    note = {"uuid": "u-busy", "reason": {"text": "...", "figures": {"why": "it uses 800 MiB"}}}
    failed = {"uuid": "u-hung", "status": "late", "text": "no answer in time"}
    wish = {"uuid": "u-fine", "reason": {"text": "all it needs"}}
    tick = tick_of(
        row("rock", 2048, 2048, fixed="it has no balloon device"),
        row("tiny", 256, 256),
        row("busy", 900, 900),
        row("hung", 900, 900),
        row("slow", 900, 600),
        row("held", 900, 900),
        row("fine", 900, 900),
        row("mute", 900, 900),
        reserved=1000,
        free=0,
        amendments=[note],
        actions=[failed],
        holds=[{"uuid": "u-held", "text": "somebody else set it"}],
        desired=[wish],
    )
    assert obstacle_lines(tick) == [
        "  rock keeps 2048 MiB: it has no balloon device",
        "  tiny keeps 256 MiB: its minimum",
        "  busy keeps 900 MiB: it uses 800 MiB",
        "  hung keeps 900 MiB: late: no answer in time",
        "  slow keeps 900 MiB: its balloon is on its way to 600 MiB",
        "  held keeps 900 MiB: somebody else set it",
        "  fine keeps 900 MiB: all it needs",
        "  mute keeps 900 MiB: it needs that much",
    ]


def test_without_a_coordinator_it_says_so_in_one_line(tmp_path: Path) -> None:
    done = call(tmp_path, "virt-balance", "reserve", "1GiB", "-c", HOST)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", NONE_RUNS)


@pytest.mark.parametrize(
    "words", [["0"], ["much"], ["1GiB", "--timeout", "-1"], ["1GiB", "--then", "'"]]
)
def test_wrong_usage(tmp_path: Path, words: list[str]) -> None:
    done = call(tmp_path, "virt-balance", "reserve", *words, "-c", HOST)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


def test_a_real_coordinator_that_can_not_free_it(tmp_path: Path) -> None:
    """The test driver tells nothing of its memory, so nothing can be freed there."""
    environment = {
        **os.environ,
        "VIRT_BALANCE_STATE_DIR": str(tmp_path / "state"),
        "VIRT_BALANCE_RUN_DIR": str(tmp_path / "run"),
    }
    words = [str(BIN / "memory_coordinator"), "0.1", "-c", HOST, "--json"]
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        next(line for line in program.stdout if "tick" in json.loads(line))
        done = call(tmp_path, "virt-balance", "reserve", "1G", "-c", HOST, "--timeout", "1")
        program.terminate()
    assert done.returncode == 1
    assert done.stdout == "0 of 1024 MiB are free\n"
    assert done.stderr.splitlines()[0] == (
        "virt-balance reserve: 1024 of 1024 MiB can't be freed within 1 s"
    )
    assert "test keeps 2048 MiB: the host's memory could not be read" in done.stderr


@contextmanager
def coordinator(tmp_path: Path, tick: Callable[[int], dict[str, Any]]) -> Iterator[Reservations]:
    """Play a coordinator of the test host; ``tick`` gets what is reserved in MiB."""
    hypervisor = connect(HOST, read_only=True)
    directory = tmp_path / "run" / hypervisor.host_id
    hypervisor.close()
    reservations = Reservations(directory)
    ended = threading.Event()

    def work() -> None:
        number = 0
        while not ended.wait(0.05 if number else 0.0):
            number += 1
            reserved = sum(r.size_kib for r in reservations.current()) // MIB
            document = {"tick": number, "monotonic_s": time.monotonic(), **tick(reserved)}
            about = {"pid": 1, "uri": HOST, "dry_run": False, "connected": True}
            text = json.dumps({**about, "last_tick": document})
            write_atomically(directory / "memory.json", text, durable=False)

    with InstanceLock(directory / "memory.lock", "the test"):
        thread = threading.Thread(target=work)
        thread.start()
        while not (directory / "memory.json").exists():
            pass
        yield reservations
        ended.set()
        thread.join()


def test_once_free_the_command_is_run_and_its_exit_code_is_ours(tmp_path: Path) -> None:
    looks: list[int] = []

    def tick(reserved: int) -> dict[str, Any]:
        looks.append(reserved)
        free = min(reserved, 300 * sum(1 for look in looks if look))
        return tick_of(row("a", 900, 700), reserved=reserved, free=free)

    words = ["--then", "sh -c 'echo started; exit 7'"]
    with coordinator(tmp_path, tick) as reservations:
        done = call(tmp_path, "virt-balance", "reserve", "1000MiB", "-c", HOST, *words)
        assert reservations.current() == ()
    assert done.returncode == 7
    lines = done.stdout.splitlines()
    assert lines[-2:] == ["1000 of 1000 MiB are free; giving (MiB): a 900 → 700", "started"]
    assert max(looks) == 1000


def test_a_command_that_is_killed_ends_as_in_a_shell(tmp_path: Path) -> None:
    with coordinator(tmp_path, lambda reserved: tick_of(reserved=reserved, free=reserved)):
        words = ("virt-balance", "reserve", "1M", "-c", HOST, "--then", "sh -c 'kill -9 $$'")
        assert call(tmp_path, *words).returncode == 137


def test_a_command_that_is_not_there(tmp_path: Path) -> None:
    with coordinator(tmp_path, lambda reserved: tick_of(reserved=reserved, free=reserved)):
        words = ("virt-balance", "reserve", "1M", "-c", HOST, "--then", "/no/such/thing")
        done = call(tmp_path, *words)
    assert done.returncode == 1
    assert done.stderr == "virt-balance reserve: /no/such/thing: No such file or directory\n"


def held(tmp_path: Path) -> subprocess.Popen[str]:
    """A reservation made in the background of a script, which makes it ignore SIGINT at first."""
    program = [str(BIN / "virt-balance"), "reserve", "10MiB", "-c", HOST]
    words = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh", *program]
    environment = {**os.environ, "VIRT_BALANCE_RUN_DIR": str(tmp_path / "run")}
    return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True)


def test_it_is_held_until_interrupted(tmp_path: Path) -> None:
    with coordinator(
        tmp_path, lambda reserved: tick_of(reserved=reserved, free=reserved)
    ) as reservations:
        holder = held(tmp_path)
        assert holder.stdout is not None
        assert holder.stdout.readline() == "10 of 10 MiB are free\n"
        assert holder.stdout.readline().startswith("kept free until")
        assert sum(r.size_kib for r in reservations.current()) == 10 * MIB
        holder.send_signal(signal.SIGINT)
        assert holder.communicate()[0] == "given back\n"
        assert holder.returncode == 0
        assert reservations.current() == ()


def test_it_ends_when_a_new_guest_has_come(tmp_path: Path) -> None:
    guests = [row("old", 512, 512)]
    with coordinator(tmp_path, lambda reserved: tick_of(*guests, reserved=reserved, free=reserved)):
        holder = held(tmp_path)
        assert holder.stdout is not None
        holder.stdout.readline()
        holder.stdout.readline()
        guests.append(row("new", 512, 512))
        assert holder.communicate(timeout=20)[0].startswith("new has come")
        assert holder.returncode == 0
