"""``virt-balance lab`` as its user sees it."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PROGRAM = Path(sys.executable).parent / "virt-balance"

Call = Callable[..., "subprocess.CompletedProcess[str]"]


def call(*words: str, before: tuple[str, ...] = ()) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*before, PROGRAM, "lab", *words],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("", "the following arguments are required: COMMAND"),
        ("sing", "invalid choice: 'sing'"),
        ("up --guests 0", "argument --guests: must be a whole number, at least 1, not '0'"),
        ("up --vcpus x", "argument --vcpus: must be a whole number, at least 1, not 'x'"),
        ("up --vcpus 300", "lab-1: 1 to 255 vCPUs"),
        ("up --maximum 64", "lab-1: memory 64 of 64 MiB (at least 128"),
        ("up --memory 900", "lab-1: memory 900 of 512 MiB"),
        ("up --name a/b", "'a/b-1' is no name for a guest"),
        ("up --zram -5", "argument --zram: must be a whole number, at least 1, not '-5'"),
        ("load", "the following arguments are required: GUEST"),
        ("load x", "no load given"),
        ("load x --duty 101", "must be 0 to 100 percent, not '101'"),
        ("load x --count 0", "must be a whole number, at least 1, not '0'"),
        ("load x --burst 1 nan", "milliseconds, not 'nan'"),
        ("load x --hog --idle", "not allowed with argument"),
        ("load x --allocate much", "MiB, not 'much'"),
        ("load x --free --hold", "not allowed with argument"),
        ("load x --hog --rate 5", "--rate and --then-free go with --allocate"),
        ("load x --free --vcpu 1", "--vcpu goes with"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(words: str, complaint: str) -> None:
    done = call(*words.split())
    assert done.returncode == 2
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


@pytest.mark.libvirt
@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("status -c qemu:///system?socket=/none", "socket=/none: Failed to connect socket"),
        ("down -c nonsense:///", "nonsense:///: "),
        ("status -c test:///default", "no guests of the lab are running"),
        ("load x --hog -c test:///default", "no guests of the lab are running"),
    ],
)
def test_a_failure_is_one_line_and_code_1(words: str, complaint: str) -> None:
    pytest.importorskip("libvirt")
    done = call(*words.split())
    assert done.returncode == 1
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


@pytest.fixture
def system() -> Iterator[Call]:
    """Calls with a libvirtd of their own where the system's would be."""
    if os.geteuid():
        pytest.skip("a private libvirtd needs root")
    pytest.importorskip("libvirt")
    from virtbalance.lab.private_libvirtd import PrivateLibvirtd

    with PrivateLibvirtd(say=print) as daemon:
        enter = ("nsenter", "--mount", "--target", str(daemon.pid))
        yield lambda *words: call(words[0], "-c", "qemu:///system", *words[1:], before=enter)


@pytest.mark.lab_full
def test_from_up_to_down(system: Call) -> None:
    done = system("up", "--guests", "2", "--vcpus", "2", "--maximum", "320", "--memory", "256")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "up: lab-1 lab-2\n"

    again = system("up", "--guests", "1")
    assert again.returncode == 1
    assert "already exists" in again.stderr

    assert system("load", "lab-1", "--duty", "50", "--vcpu", "1").returncode == 0
    load = system("load", "lab-2", "--burst", "5", "5", "--allocate", "20", "--rate", "500")
    assert load.returncode == 0, load.stderr

    status = system("status")
    head, *rows = (line.split() for line in status.stdout.splitlines())
    assert head == ["GUEST", "LOAD", "MCOUNT/S", "BALLOONED", "TOTAL", "FREE", "HELD", "MEMORY"]
    assert [row[:2] for row in rows] == [["lab-1", "off,duty"], ["lab-2", "burst,burst"]]
    assert float(rows[0][2]) > 0
    assert [row[3] for row in rows] == ["64", "64"]
    assert rows[1][6:] == ["20", "limit"]

    assert "has no such" not in system("load", "all", "--count", "100000").stderr
    assert system("load", "lab-2", "--allocate", "max", "--then-free").returncode == 0
    assert system("load", "lab-2", "--hold").returncode == 0
    assert system("load", "lab-2", "--free").returncode == 0
    wrong = system("load", "lab-3", "--idle")
    assert wrong.returncode == 1
    assert (
        wrong.stderr == "virt-balance lab: no guest 'lab-3' in the lab; there are: lab-1, lab-2\n"
    )

    assert system("down").stdout == "down: 2 guests ended\n"
    assert system("down").stdout == "down: there were no guests\n"
    assert system("status").returncode == 1


@pytest.mark.lab_full
def test_a_guest_that_does_not_come_up_leaves_none_behind(system: Call) -> None:
    failed = system("up", "--name", "never", "--guests", "1", "--zram", "9999999")
    assert failed.returncode == 1  # so much swap there is not: the guest gives up as it boots
    assert "guest never-1 did not come up" in failed.stderr
    assert system("down").stdout == "down: there were no guests\n"
