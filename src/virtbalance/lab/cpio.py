"""Archives in the format Linux unpacks as its initial file system (cpio "newc").

Each entry is a header of 110 ASCII characters (a magic and 13 numbers of 8 hex digits), the name
with a NUL, padding to 4 bytes, the content, padding to 4 bytes. The last entry is TRAILER!!!.
Built here because device nodes need root to make on disk but not to write in an archive.
See Documentation/driver-api/early-userspace/buffer-format.rst of the Linux kernel.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Entry:
    """One folder, file or device node; `mode` holds type and permissions, as in stat."""

    name: str
    mode: int
    content: bytes = b""
    device: tuple[int, int] = (0, 0)


def folder(name: str) -> Entry:
    """Return a folder; its parents must come before it."""
    return Entry(name, stat.S_IFDIR | 0o755)


def file(name: str, content: bytes, *, executable: bool = False) -> Entry:
    """Return a regular file."""
    return Entry(name, stat.S_IFREG | (0o755 if executable else 0o644), content)


def character_device(name: str, major: int, minor: int) -> Entry:
    """Return a character device node."""
    return Entry(name, stat.S_IFCHR | 0o600, device=(major, minor))


def archive(entries: Iterable[Entry]) -> bytes:
    """Return the archive of the entries, in their order; same input, same bytes."""
    parts = [_packed(number, entry) for number, entry in enumerate(entries, start=1)]
    return b"".join([*parts, _packed(0, Entry("TRAILER!!!", 0))])


def _packed(number: int, entry: Entry) -> bytes:
    name = entry.name.encode("ascii") + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    numbers = (
        number,
        entry.mode,
        0,  # user
        0,  # group
        links,
        0,  # modification time: constant, so that equal content is an equal archive
        len(entry.content),
        0,  # device the archive was made on, major and minor
        0,
        *entry.device,
        len(name),
        0,  # checksum, unused in this format
    )
    header = b"070701" + b"".join(b"%08x" % figure for figure in numbers)
    return _padded(header + name) + _padded(entry.content)


def _padded(content: bytes) -> bytes:
    return content + b"\0" * (-len(content) % 4)
