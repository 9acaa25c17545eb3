"""A guest's specification as libvirt domain XML.

Everything that only costs time at boot is left out: no disk, no network, no video, no USB.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

from virtbalance.lab.errors import LabError
from virtbalance.lab.marks import mark
from virtbalance.lab.specs import Balloon, GuestSpec

CHANNEL_NAME = "org.virtbalance.lab.0"
"""The port the guest's program looks for (boot.c)."""

KERNEL_ARGUMENTS = (
    "console=ttyS0 quiet panic=-1 mitigations=off nokaslr no_timer_check"
    " cryptomgr.notests noreplace-smp"
)
"""The second line saves a quarter of the boot."""

TCG_ARGUMENTS = " tsc=unstable"
"""Without KVM the guest measures its TSC while it has to wait for a CPU, may get it wrong by a
factor of twenty, and its clock with it. Unstable, the TSC is left alone and the HPET counts."""

TCG_MODEL = "Nehalem"
"""A processor of few features boots a tenth faster than one with all that TCG can do."""

FAST_FIRMWARE = Path("/usr/share/qemu/qboot.rom")
"""A firmware that does just what a guest with a kernel of its own needs; a tenth of the boot."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a guest runs: what it boots from and where its files go.

    `virtualization` is libvirt's domain type, `kvm` or `qemu` (TCG). `owner` is the mark of the
    process the guest belongs to (see marks.py). Without `folder`, libvirt chooses the channel's
    socket and there is no console log.
    """

    virtualization: str
    kernel: Path
    initramfs: Path
    owner: str
    folder: Path | None


def domain_xml(spec: GuestSpec, place: Place) -> str:
    """Return the domain XML of a guest; LabError if its metadata is not XML."""
    domain = ET.Element("domain", type=place.virtualization)
    _child(domain, "name", spec.name)
    _child(domain, "memory", spec.maximum_mib, unit="MiB")
    _child(domain, "currentMemory", spec.start_mib, unit="MiB")
    vcpu = _child(domain, "vcpu", spec.most_vcpus)
    if spec.most_vcpus != spec.vcpus:
        vcpu.set("current", str(spec.vcpus))
    _pins(domain, spec)
    _boot(domain, spec, place)
    _child(_child(domain, "features"), "acpi")
    _processor(domain, place)
    # A guest that reboots or panics is dead, and must look so.
    _child(domain, "on_reboot", "destroy")
    _child(domain, "on_crash", "destroy")
    _devices(domain, spec, place)
    _metadata(domain, spec, place)
    return ET.tostring(domain, encoding="unicode")


def _child(parent: ET.Element, tag: str, text: object = None, /, **attributes: str) -> ET.Element:
    child = ET.SubElement(parent, tag, attributes)
    if text is not None:
        child.text = str(text)
    return child


def _pins(domain: ET.Element, spec: GuestSpec) -> None:
    if not any(spec.pins):
        return
    tune = _child(domain, "cputune")
    for number, cpus in enumerate(spec.pins):
        if cpus:
            _child(tune, "vcpupin", vcpu=str(number), cpuset=",".join(map(str, sorted(cpus))))


def _boot(domain: ET.Element, spec: GuestSpec, place: Place) -> None:
    arguments = KERNEL_ARGUMENTS
    if place.virtualization != "kvm":
        arguments += TCG_ARGUMENTS
    if spec.balloon is Balloon.DRIVEN:
        arguments += " balloon=1"
    if spec.zram_mib:
        arguments += f" zram_mib={spec.zram_mib}"
    system = _child(domain, "os")
    _child(system, "type", "hvm", arch="x86_64", machine="q35")
    if FAST_FIRMWARE.exists():
        _child(system, "loader", FAST_FIRMWARE, type="rom")
    _child(system, "kernel", place.kernel)
    _child(system, "initrd", place.initramfs)
    _child(system, "cmdline", arguments)


def _processor(domain: ET.Element, place: Place) -> None:
    if place.virtualization == "kvm":
        _child(domain, "cpu", mode="host-passthrough")
        return
    processor = _child(domain, "cpu", mode="custom", match="exact", check="none")
    _child(processor, "model", TCG_MODEL, fallback="forbid")


def _devices(domain: ET.Element, spec: GuestSpec, place: Place) -> None:
    devices = _child(domain, "devices")
    _child(devices, "controller", type="usb", model="none")
    serial_bus = _child(devices, "controller", type="virtio-serial", index="0")
    _address(serial_bus, slot=2)
    if place.folder is not None:
        serial = _child(devices, "serial", type="file")
        _child(serial, "source", path=str(place.folder / f"{spec.name}.log"))
    channel = _child(devices, "channel", type="unix")
    if place.folder is not None:
        _child(channel, "source", mode="bind", path=str(place.folder / f"{spec.name}.sock"))
    _child(channel, "target", type="virtio", name=CHANNEL_NAME)
    if spec.balloon is Balloon.NONE:
        _child(devices, "memballoon", model="none")
        return
    balloon = _child(devices, "memballoon", model="virtio")
    _address(balloon, slot=3)
    if spec.autodeflate:
        balloon.set("autodeflate", "on")
    if spec.free_page_reporting:
        balloon.set("freePageReporting", "on")
    if spec.stats_period_s:
        _child(balloon, "stats", period=str(spec.stats_period_s))


def _address(device: ET.Element, slot: int) -> None:
    """Put a device on the root bus: the bridges libvirt would add cost time at boot."""
    _child(device, "address", type="pci", domain="0", bus="0", slot=str(slot), function="0")


def _metadata(domain: ET.Element, spec: GuestSpec, place: Place) -> None:
    metadata = _child(domain, "metadata")
    metadata.append(mark(place.owner))
    if not spec.metadata:
        return
    try:
        metadata.append(ET.fromstring(spec.metadata))  # noqa: S314 - the caller's own
    except ET.ParseError as error:
        raise LabError(f"{spec.name}: metadata is not XML: {error}") from error
