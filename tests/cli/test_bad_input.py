"""Bad input: one clear line on stderr, exit code 2 for usage and 1 for failure, no traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent


def call(tmp_path: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / words[0], *words[1:]],
        env={
            **os.environ,
            "VIRT_BALANCE_STATE_DIR": str(tmp_path / "state"),
            "VIRT_BALANCE_RUN_DIR": str(tmp_path / "run"),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("program", ["vcpu_scheduler", "memory_coordinator"])
@pytest.mark.parametrize("period", ["0", "-1", "abc", "nan", "inf", "0.001"])
def test_a_period_that_is_none(tmp_path: Path, program: str, period: str) -> None:
    done = call(tmp_path, program, period)
    assert done.returncode == 2
    assert done.stderr == (
        f"{program}: argument PERIOD: must be seconds, at least 0.01, not {period!r} "
        f"(see {program} --help)\n"
    )
    assert done.stdout == ""


def test_a_policy_that_does_not_exist(tmp_path: Path) -> None:
    done = call(tmp_path, "vcpu_scheduler", "1", "-c", "test:///default", "--policy", "best")
    assert done.returncode == 2
    assert done.stderr.startswith("vcpu_scheduler: no cpu policy 'best'; there are: balance")
    assert done.stderr.count("\n") == 1


def test_a_policy_file_that_raises(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("raise RuntimeError('not today')")
    reference = f"{tmp_path}/mine.py:Mine"
    done = call(tmp_path, "virt-balance", "cpu", "--policy", reference)
    assert done.returncode == 2
    assert done.stderr == f"virt-balance cpu: {tmp_path}/mine.py:1: RuntimeError: not today\n"


def test_a_settings_file_with_mistakes_names_them_all(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text("[cpu]\nperiod_s = 'often'\n[memory]\ncolour = 1\n")
    done = call(tmp_path, "virt-balance", "run", "--config", f"{tmp_path}/s.toml")
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"virt-balance run: {tmp_path}/s.toml: ") for line in lines)


@pytest.mark.libvirt
@pytest.mark.parametrize(
    "uri",
    ["qemu+unix:///system?socket=/nowhere", "qemu+tcp://127.0.0.1:1/system", "nonsense:///", "x"],
)
@pytest.mark.parametrize("program", ["vcpu_scheduler", "memory_coordinator"])
def test_a_uri_that_does_not_answer(tmp_path: Path, program: str, uri: str) -> None:
    done = call(tmp_path, program, "1", "-c", uri, "--once")
    assert done.returncode == 1
    assert done.stderr.startswith(f"{program}: can't connect to {uri}: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.libvirt
def test_a_state_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = call(
        tmp_path,
        "vcpu_scheduler",
        "1",
        "-c",
        "test:///default",
        "--once",
        VIRT_BALANCE_STATE_DIR=f"{tmp_path}/file",
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"{tmp_path}/file" in done.stderr


@pytest.mark.parametrize(
    "words", [[], ["nope"], ["cpu", "--ticks", "0"], ["run", "--cpu-period", "0"]]
)
def test_wrong_usage_of_the_command(tmp_path: Path, words: list[str]) -> None:
    done = call(tmp_path, "virt-balance", *words)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


def test_an_unknown_option_refers_to_the_commands_own_help(tmp_path: Path) -> None:
    done = call(tmp_path, "virt-balance", "plan", "--wotch", "3")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "virt-balance plan: unrecognized arguments: --wotch 3 (see virt-balance plan --help)\n"
    )


def test_settings_of_a_policy_that_does_not_exist(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text("[cpu.policies.balnce]\npin = 'cpu'\n")
    done = call(tmp_path, "virt-balance", "run", "--config", f"{tmp_path}/s.toml")
    assert done.returncode == 2
    assert done.stderr == (
        "virt-balance run: cpu.policies.balnce: there is no such policy; there are: balance, hold\n"
    )


def test_output_that_can_not_be_written(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [BIN / "virt-balance", "bench", "show", "c1"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, "virt-balance bench: No space left on device\n")


@pytest.mark.libvirt
@pytest.mark.parametrize(
    "command", ["virt-balance bench list", "vcpu_scheduler 0.1 -c test:///default --ticks 2"]
)
def test_output_that_is_closed(tmp_path: Path, command: str) -> None:
    done = call(tmp_path, "/bin/sh", "-c", f"{BIN}/{command} >&-")
    assert (done.returncode, done.stderr) == (0, "")


def test_status_with_nothing_running(tmp_path: Path) -> None:
    done = call(tmp_path, "virt-balance", "status")
    assert done.returncode == 1
    assert done.stdout == "no program of virt-balance has run since the machine was started\n"
