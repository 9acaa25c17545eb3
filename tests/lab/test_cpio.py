"""The archive a guest boots from, byte by byte."""

import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from virtbalance.lab import cpio


def test_one_small_file_is_exactly_these_bytes() -> None:
    packed = cpio.archive([cpio.file("a", b"hi")])
    assert (
        packed
        == (
            b"070701"  # magic
            b"00000001"  # number
            b"000081a4"  # regular file, 0644
            b"0000000000000000"  # user, group
            b"00000001"  # links
            b"00000000"  # time
            b"00000002"  # size
            b"0000000000000000"  # device it is on
            b"0000000000000000"  # device it is
            b"00000002"  # length of the name, with its NUL
            b"00000000"  # checksum
            b"a\0hi\0\0"
            b"070701" + b"00000000" * 4 + b"00000001" + b"00000000" * 6 + b"0000000b" + b"00000000"
            b"TRAILER!!!\0\0\0\0"
        )
    )


def test_every_entry_starts_at_a_multiple_of_four() -> None:
    for length in range(8):
        packed = cpio.archive([cpio.file("x" * length, b"y" * length), cpio.folder("d")])
        assert packed.index(b"070701", 6) % 4 == 0
        assert len(packed) % 4 == 0


def test_equal_content_makes_an_equal_archive() -> None:
    entries = [cpio.folder("dev"), cpio.character_device("dev/console", 5, 1)]
    assert cpio.archive(entries) == cpio.archive(list(entries))


def test_kinds_and_permissions() -> None:
    assert cpio.folder("d").mode == stat.S_IFDIR | 0o755
    assert cpio.file("f", b"").mode == stat.S_IFREG | 0o644
    assert cpio.file("f", b"", executable=True).mode == stat.S_IFREG | 0o755
    assert cpio.character_device("c", 5, 1).device == (5, 1)


def test_busybox_and_cpio_can_read_it(tmp_path: Path) -> None:
    tool = shutil.which("cpio")
    command = [tool, "-i"] if tool else [shutil.which("busybox") or "busybox", "cpio", "-i"]
    if not (tool or shutil.which("busybox")):
        pytest.skip("neither cpio nor busybox is installed")
    packed = cpio.archive(
        [cpio.folder("sub"), cpio.file("sub/run", b"#!/bin/sh\n" * 999, executable=True)]
    )
    subprocess.run(command, input=packed, cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "sub" / "run").read_bytes() == b"#!/bin/sh\n" * 999
    assert (tmp_path / "sub" / "run").stat().st_mode & 0o777 == 0o755
