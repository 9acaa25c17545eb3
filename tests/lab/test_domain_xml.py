"""A specification as domain XML."""

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from virtbalance.lab import Balloon, GuestSpec, LabError
from virtbalance.lab.domain_xml import Place, domain_xml

PLACE = Place("qemu", Path("/k/vmlinuz"), Path("/k/initramfs"), "7:8:boot", Path("/r/g"))


def made(place: Place = PLACE, **settings: object) -> ET.Element:
    return ET.fromstring(domain_xml(GuestSpec(name="one", **settings), place))  # type: ignore[arg-type]


def test_memory_is_what_was_asked() -> None:
    domain = made(maximum_mib=768, current_mib=256)
    assert domain.findtext("memory") == "768"
    assert domain.find("memory").get("unit") == "MiB"  # type: ignore[union-attr]
    assert domain.findtext("currentMemory") == "256"
    assert made(maximum_mib=640).findtext("currentMemory") == "640"


def test_vcpus_and_room_for_more() -> None:
    assert made(vcpus=2).find("vcpu").attrib == {}  # type: ignore[union-attr]
    domain = made(vcpus=2, maximum_vcpus=4)
    assert domain.findtext("vcpu") == "4"
    assert domain.find("vcpu").get("current") == "2"  # type: ignore[union-attr]


def test_start_pins() -> None:
    assert made(vcpus=2).find("cputune") is None
    assert made(vcpus=2, pins=(frozenset(), frozenset())).find("cputune") is None
    pins = made(vcpus=3, pins=(frozenset({10, 9}), frozenset(), frozenset({0})))
    assert [pin.attrib for pin in pins.iterfind("cputune/vcpupin")] == [
        {"vcpu": "0", "cpuset": "9,10"},
        {"vcpu": "2", "cpuset": "0"},
    ]


def test_balloons() -> None:
    driven = made(stats_period_s=2)
    assert driven.find("devices/memballoon").get("model") == "virtio"  # type: ignore[union-attr]
    assert driven.find("devices/memballoon/stats").get("period") == "2"  # type: ignore[union-attr]
    assert " balloon=1" in str(driven.findtext("os/cmdline"))
    assert made(stats_period_s=0).find("devices/memballoon/stats") is None

    driverless = made(balloon=Balloon.DRIVERLESS)
    assert driverless.find("devices/memballoon").get("model") == "virtio"  # type: ignore[union-attr]
    assert "balloon=1" not in str(driverless.findtext("os/cmdline"))

    none = made(balloon=Balloon.NONE)
    assert none.find("devices/memballoon").attrib == {"model": "none"}  # type: ignore[union-attr]

    kind = made(autodeflate=True, free_page_reporting=True).find("devices/memballoon")
    assert kind is not None
    assert kind.get("autodeflate") == kind.get("freePageReporting") == "on"


def test_swap_is_a_word_to_the_guest() -> None:
    assert " zram_mib=64" in str(made(zram_mib=64).findtext("os/cmdline"))
    assert "zram" not in str(made().findtext("os/cmdline"))


def test_without_kvm_the_guest_leaves_its_tsc_alone() -> None:
    assert "tsc=unstable" in str(made().findtext("os/cmdline"))
    kvm = made(Place("kvm", Path("k"), Path("i"), "", None))
    assert kvm.get("type") == "kvm"
    assert "tsc" not in str(kvm.findtext("os/cmdline"))
    assert kvm.find("cpu").attrib == {"mode": "host-passthrough"}  # type: ignore[union-attr]


def test_files_are_in_the_folder_or_where_libvirt_wants_them() -> None:
    there = made()
    assert there.find("devices/channel/source").get("path") == "/r/g/one.sock"  # type: ignore[union-attr]
    assert there.find("devices/serial/source").get("path") == "/r/g/one.log"  # type: ignore[union-attr]
    libvirts = made(Place("qemu", Path("k"), Path("i"), "", None))
    assert libvirts.find("devices/channel/source") is None
    assert libvirts.find("devices/serial") is None


def test_the_mark_and_the_callers_metadata_stand_side_by_side() -> None:
    domain = made(metadata="<x:y xmlns:x='urn:z'>9</x:y>")
    mark = domain.find("metadata/{https://virt-balance.dev/xmlns/lab/1}guest")
    assert mark is not None
    assert mark.get("owner") == "7:8:boot"
    assert domain.findtext("metadata/{urn:z}y") == "9"
    with pytest.raises(LabError, match="one: metadata is not XML"):
        made(metadata="<a>")


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"vcpus": 0}, "1 to 255 vCPUs"),
        ({"vcpus": 4, "maximum_vcpus": 2}, "maximum not below"),
        ({"maximum_mib": 64}, "at least 128"),
        ({"maximum_mib": 512, "current_mib": 513}, "513 of 512"),
        ({"vcpus": 2, "pins": (frozenset({0}),)}, "1 pins for 2 vCPUs"),
    ],
)
def test_specifications_no_guest_could_have(settings: dict[str, object], complaint: str) -> None:
    with pytest.raises(LabError, match=complaint):
        GuestSpec(name="one", **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", "a b", "../x", "-a", "x" * 41])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(LabError, match="is no name"):
        GuestSpec(name=name)
