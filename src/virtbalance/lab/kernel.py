"""A guest kernel: the distribution's kernel package, unpacked into the cache.

Nothing is installed and the host's own /boot is not touched. Once a kernel is in the cache it is
used as it is, without asking the package archive again.
"""

from __future__ import annotations

import platform
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from virtbalance.lab.commands import output_of, require
from virtbalance.lab.errors import LabError

if TYPE_CHECKING:
    from collections.abc import Callable

DEBIAN_PACKAGE = "linux-image-cloud-amd64"
UBUNTU_PACKAGE = "linux-image-virtual"


@dataclass(frozen=True, slots=True)
class Kernel:
    """An unpacked kernel: its version, the bootable image, the folder of its modules."""

    version: str
    image: Path
    modules: Path


def unpacked_kernel(cache: Path, say: Callable[[str], None]) -> Kernel:
    """Return the newest kernel in the cache, fetching one if there is none.

    The caller holds the cache's lock. Raises LabError if the package can't be had.
    """
    store = cache / "kernel"
    store.mkdir(parents=True, exist_ok=True)
    found = _newest(store)
    if found is not None:
        return found
    say("lab: fetching a guest kernel (once)")
    with tempfile.TemporaryDirectory(dir=cache, prefix="fetch-") as name:
        folder = Path(name)
        _fetch(folder)
        version = next((folder / "root" / "lib" / "modules").iterdir()).name
        (folder / "root").rename(store / version)
    fetched = _newest(store)
    if fetched is None:
        raise LabError(f"the kernel package unpacked to {store} holds no kernel")
    return fetched


def _newest(store: Path) -> Kernel | None:
    folders = sorted(store.iterdir(), key=lambda folder: folder.stat().st_mtime)
    for folder in reversed(folders):
        image = folder / "boot" / f"vmlinuz-{folder.name}"
        modules = folder / "lib" / "modules" / folder.name
        if image.is_file() and modules.is_dir():
            return Kernel(folder.name, image, modules)
    return None


def _fetch(folder: Path) -> None:
    """Download the kernel's packages into a folder and unpack them into its `root`."""
    require("apt-get", "apt")
    require("dpkg", "dpkg")
    for package in _packages():
        # As root, apt would otherwise warn that its own user can't write here.
        output_of(["apt-get", "-o", "APT::Sandbox::User=root", "download", package], folder=folder)
    (folder / "root").mkdir()
    for archive in sorted(folder.glob("*.deb")):
        output_of(["dpkg", "-x", str(archive), str(folder / "root")])
    modules = folder / "root" / "lib" / "modules"
    if not modules.is_dir():
        # Merged-/usr packages keep them here; one layout in the cache is enough.
        merged = folder / "root" / "usr" / "lib" / "modules"
        if not merged.is_dir():
            raise LabError("the kernel package holds no modules")
        modules.parent.mkdir(exist_ok=True)
        shutil.move(merged, modules)


def _packages() -> list[str]:
    """Name the packages with the image and the modules, as the meta-package depends on them."""
    if platform.machine() != "x86_64":
        raise LabError(f"the lab's guests are x86_64; this host is {platform.machine()}")
    system = platform.freedesktop_os_release()
    ubuntu = "ubuntu" in (system.get("ID", ""), *system.get("ID_LIKE", "").split())
    meta = UBUNTU_PACKAGE if ubuntu else DEBIAN_PACKAGE
    depends = output_of(["apt-cache", "depends", "--important", meta]).decode()
    images = [
        line.split()[-1]
        for line in depends.splitlines()
        if line.strip().startswith("Depends: linux-image-")
    ]
    if not images:
        raise LabError(f"no package {meta} (is `apt-get update` due?)")
    image = images[0]
    return [image, image.replace("linux-image-", "linux-modules-", 1)] if ubuntu else [image]
