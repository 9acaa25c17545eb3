"""Kernel modules of the guest: found, ordered by dependency, decompressed."""

from __future__ import annotations

import lzma
from typing import TYPE_CHECKING

from virtbalance.lab.commands import output_of, require
from virtbalance.lab.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def in_load_order(
    folder: Path, wanted: Iterable[str], *, where_there: Iterable[str] = ()
) -> dict[str, bytes]:
    """Return the modules wanted and all they depend on, each after what it needs.

    `folder` is a kernel's /lib/modules/VERSION. Modules built into the kernel are left out.
    Raises LabError for a module that is neither there nor built in, unless it is wanted only
    `where_there`; those are loaded first.
    """
    files = {_name(path): path for path in sorted(folder.rglob("*.ko*"))}
    built_in = _built_in(folder)
    ordered: dict[str, bytes] = {}

    def add(name: str, asked_by: str) -> None:
        if name in ordered or name in built_in:
            return
        if name not in files:
            raise LabError(f"kernel module {name}, needed by {asked_by}, is not in {folder}")
        content = _content(files[name])
        for needed in depends(content):
            add(needed, name)
        ordered[name] = content

    for name in [*(name for name in where_there if name in files), *wanted]:
        add(name, "the lab")
    return ordered


def depends(content: bytes) -> list[str]:
    """Read a module's `depends=` out of its .modinfo section (NUL-separated KEY=VALUE)."""
    _, found, rest = content.partition(b"\0depends=")
    if not found:
        return []
    names = rest.partition(b"\0")[0].decode("ascii")
    return [name.replace("-", "_") for name in names.split(",") if name]


def _name(path: Path) -> str:
    return path.name.partition(".ko")[0].replace("-", "_")


def _built_in(folder: Path) -> set[str]:
    listing = folder / "modules.builtin"
    if not listing.is_file():
        return set()
    return {
        line.rpartition("/")[2].partition(".ko")[0].replace("-", "_")
        for line in listing.read_text("ascii").splitlines()
    }


def _content(path: Path) -> bytes:
    if path.suffix == ".xz":
        return lzma.decompress(path.read_bytes())
    if path.suffix == ".zst":
        require("zstd", "zstd")
        return output_of(["zstd", "-d", "-q", "-c", str(path)])
    return path.read_bytes()
