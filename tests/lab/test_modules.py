"""Kernel modules: found under any packing, and loaded after what they need."""

import lzma
import shutil
import subprocess
from pathlib import Path

import pytest

from virtbalance.lab.errors import LabError
from virtbalance.lab.modules import depends, in_load_order


def module(name: str, *needs: str) -> bytes:
    return f"\x7fELF\0license=GPL\0depends={','.join(needs)}\0name={name}\0".encode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    kernel = tmp_path / "kernel" / "drivers"
    kernel.mkdir(parents=True)
    (kernel / "virtio.ko").write_bytes(module("virtio"))
    (kernel / "virtio-ring.ko").write_bytes(module("virtio_ring", "virtio"))
    (kernel / "virtio_pci.ko.xz").write_bytes(
        lzma.compress(module("virtio_pci", "virtio-ring", "virtio"))
    )
    (tmp_path / "modules.builtin").write_text("kernel/drivers/char/virtio-console.ko\n")
    return tmp_path


def test_each_module_comes_after_what_it_needs(folder: Path) -> None:
    loaded = in_load_order(folder, ["virtio_pci"])
    assert list(loaded) == ["virtio", "virtio_ring", "virtio_pci"]


def test_compressed_modules_are_unpacked(folder: Path) -> None:
    loaded = in_load_order(folder, ["virtio_pci"])
    assert loaded["virtio_pci"] == module("virtio_pci", "virtio-ring", "virtio")


def test_zstd_modules_are_unpacked(folder: Path) -> None:
    if not shutil.which("zstd"):
        pytest.skip("zstd is not installed")
    plain = folder / "kernel" / "zram.ko"
    plain.write_bytes(module("zram"))
    subprocess.run(["zstd", "-q", "--rm", str(plain)], check=True)
    assert in_load_order(folder, ["zram"]) == {"zram": module("zram")}
    assert not plain.exists()


def test_what_is_built_into_the_kernel_is_left_out(folder: Path) -> None:
    assert in_load_order(folder, ["virtio_console"]) == {}


def test_a_module_that_is_nowhere_is_named_with_who_needs_it(folder: Path) -> None:
    with pytest.raises(LabError, match="module balloon, needed by the lab"):
        in_load_order(folder, ["balloon"])


def test_some_are_wanted_only_where_they_are_there(folder: Path) -> None:
    loaded = in_load_order(folder, ["virtio"], where_there=["lzo_rle", "virtio_ring"])
    assert list(loaded) == ["virtio", "virtio_ring"]
    assert list(in_load_order(folder, ["virtio"], where_there=["lzo_rle"])) == ["virtio"]


def test_depends_of_a_module_without_any() -> None:
    assert depends(module("alone")) == []
    assert depends(b"no such section") == []
