"""What a guest boots from: a kernel and an initramfs with our program, built once and cached."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import tempfile
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from virtbalance.lab import cpio
from virtbalance.lab.commands import output_of, require
from virtbalance.lab.errors import LabError
from virtbalance.lab.kernel import Kernel, unpacked_kernel
from virtbalance.lab.modules import in_load_order

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

COMPILER = ("gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-static", "-pthread", "-s")

MODULES = {
    "boot": ("virtio_pci", "virtio_console"),
    "balloon": ("virtio_balloon",),
    "zram": ("zram",),
}
"""Modules by the folder they are in; the guest's boot.c loads a folder where it is wanted."""

WHERE_THERE = {"zram": ("lzo_rle",)}
"""Modules some kernels have apart: zram's compressor, which it asks for without depending on it."""


@dataclass(frozen=True, slots=True)
class Assets:
    """The two files a guest boots from, and the kernel's version."""

    kernel: Path
    initramfs: Path
    kernel_version: str


def cache_folder() -> Path:
    """Return the lab's cache, `$XDG_CACHE_HOME/virt-balance` or `~/.cache/virt-balance`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "virt-balance"


def assets(say: Callable[[str], None], cache: Path | None = None) -> Assets:
    """Return what guests boot from, building what is not in the cache.

    Safe for several processes at once; a build that is interrupted leaves nothing half done.
    Raises LabError if a package, the compiler or its libraries are missing.
    """
    cache = cache or cache_folder()
    with _locked(cache):
        kernel = unpacked_kernel(cache, say)
        store = cache / "initramfs"
        store.mkdir(exist_ok=True)
        target = store / f"{kernel.version}-{_recipe_hash()}.cpio"
        if not target.exists():
            say("lab: building the guest's initramfs (once)")
            _write_atomically(target, _initramfs(kernel, _program(cache)))
    return Assets(kernel.image, target, kernel.version)


@contextlib.contextmanager
def _locked(cache: Path) -> Iterator[None]:
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _sources() -> dict[str, bytes]:
    folder = resources.files("virtbalance.lab") / "guest"
    return {
        entry.name: entry.read_bytes()
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith((".c", ".h"))
    }


def _recipe_hash() -> str:
    """Hash everything the initramfs is made of except the kernel."""
    digest = hashlib.sha256(repr((COMPILER, MODULES, WHERE_THERE)).encode())
    for name, content in _sources().items():
        digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


def _program(cache: Path) -> bytes:
    require(COMPILER[0], "gcc")
    with tempfile.TemporaryDirectory(dir=cache, prefix="compile-") as name:
        folder = Path(name)
        for source, content in _sources().items():
            (folder / source).write_bytes(content)
        sources = sorted(path.name for path in folder.glob("*.c"))
        output_of([*COMPILER, "-o", "init", *sources], folder=folder)
        return (folder / "init").read_bytes()


def _initramfs(kernel: Kernel, program: bytes) -> bytes:
    entries = [
        cpio.folder("dev"),
        cpio.character_device("dev/console", 5, 1),
        cpio.folder("proc"),
        cpio.folder("sys"),
        cpio.folder("modules"),
        cpio.file("init", program, executable=True),
    ]
    earlier: set[str] = set()
    for group, wanted in MODULES.items():
        entries.append(cpio.folder(f"modules/{group}"))
        needed = in_load_order(kernel.modules, wanted, where_there=WHERE_THERE.get(group, ()))
        entries += [
            cpio.file(f"modules/{group}/{number:02}-{name}.ko", content)
            for number, (name, content) in enumerate(needed.items())
            if name not in earlier
        ]
        earlier |= needed.keys()
    # Not compressed: unpacking it would take the guest longer than reading it.
    return cpio.archive(entries)


def _write_atomically(target: Path, content: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as file:
        temporary = Path(file.name)
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            temporary.chmod(0o644)
            temporary.rename(target)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise LabError(f"{target}: {error.strerror}") from error
