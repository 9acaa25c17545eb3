"""Processes told apart, ended only if they are ours."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from virtbalance.lab.processes import Owner, command_line, end_process, mount_namespace

STUBBORN = (
    "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print(os.getpid(), flush=True); time.sleep(60)"
)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "60"])
    while not command_line(process.pid):  # empty for a moment after exec
        time.sleep(0.01)
    yield process
    process.kill()
    process.wait()


def test_an_owner_survives_being_written_down() -> None:
    owner = Owner.this()
    assert owner.pid == os.getpid()
    assert Owner.parse(str(owner)) == owner
    assert owner.alive()


@pytest.mark.parametrize("text", ["", "1", "1:2", "a:2:b", "1:-2:b", "1:2:"])
def test_what_is_no_owner(text: str) -> None:
    assert Owner.parse(text) is None


def test_another_process_with_the_same_number_is_not_the_owner() -> None:
    owner = Owner.this()
    assert not replace(owner, start_ticks=owner.start_ticks - 1).alive()
    assert not replace(owner, boot="another").alive()
    assert not replace(owner, pid=2**22 - 1).alive()


def test_a_zombie_is_not_alive(sleeper: subprocess.Popen[bytes]) -> None:
    fields = Path(f"/proc/{sleeper.pid}/stat").read_text().rpartition(")")[2].split()
    owner = replace(Owner.this(), pid=sleeper.pid, start_ticks=int(fields[19]))
    assert owner.alive()
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert not owner.alive()


def test_a_process_is_ended_only_if_it_belongs(sleeper: subprocess.Popen[bytes]) -> None:
    assert not end_process(sleeper.pid, lambda pid: False)
    assert sleeper.poll() is None
    assert end_process(sleeper.pid, lambda pid: "sleep" in command_line(pid))
    assert sleeper.wait(5) == -15


def test_a_process_that_does_not_listen_is_killed() -> None:
    # Its own parent tells how it ended: whoever else waits for children here can't get in between.
    words = ["sh", "-c", '"$0" -c "$1"; echo $?', sys.executable, STUBBORN]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert end_process(pid, lambda pid: True, patience_s=0.2)
        assert parent.stdout.read() == b"137\n"  # 128 + SIGKILL


def test_a_process_that_is_gone() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    assert not end_process(process.pid, lambda pid: True)
    assert command_line(process.pid) == ""
    assert mount_namespace(process.pid) == ""
