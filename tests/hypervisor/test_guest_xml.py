"""What is read from a guest's XML."""

import pytest

from virtbalance.hypervisor.guest_xml import GuestXml, read_guest_xml
from virtbalance.hypervisor.settings_xml import NAMESPACE
from virtbalance.model.guest import GuestDefinition

FULL = f"""
<domain type='kvm' id='7'>
  <metadata><vb:guest xmlns:vb="{NAMESPACE}" weight="2"/><o:x xmlns:o="urn:other"/></metadata>
  <memory unit='KiB'>4194304</memory>
  <currentMemory unit='KiB'>2097152</currentMemory>
  <vcpu placement='static' cpuset='0-3,^2' current='2'>4</vcpu>
  <vcpus>
    <vcpu id='0' enabled='yes' hotpluggable='no'/><vcpu id='1' enabled='no'/>
    <vcpu id='2' enabled='no'/><vcpu id='3' enabled='yes' hotpluggable='yes'/>
  </vcpus>
  <cputune>
    <shares>2048</shares><period>50000</period><quota>25000</quota>
    <vcpupin vcpu='0' cpuset='1'/><vcpupin vcpu='3' cpuset='2'/>
  </cputune>
  <numatune><memory mode='strict' nodeset='1'/></numatune>
  <devices><memballoon model='virtio' autodeflate='on' freePageReporting='on'>
    <stats period='5'/></memballoon></devices>
</domain>"""
INACTIVE = "<domain><cputune><vcpupin vcpu='3' cpuset='2'/></cputune></domain>"


def read(body: str, inactive: str | None = None) -> GuestXml:
    return read_guest_xml(f"<domain>{body}</domain>", inactive, NAMESPACE)


def test_everything() -> None:
    xml = read_guest_xml(FULL, INACTIVE, NAMESPACE)
    assert xml.definition == GuestDefinition(
        cpuset=frozenset({0, 1, 3}),
        pinned_vcpus=frozenset({3}),
        cpu_shares=2048,
        quota_ratio=0.5,
        balloon=True,
        autodeflate=True,
        free_page_reporting=True,
        memory_nodes=frozenset({1}),
        stats_period_s=5,
    )
    assert (xml.maximum_kib, xml.current_kib) == (4194304, 2097152)
    assert xml.vcpus == {0, 3}
    assert xml.settings is not None
    assert xml.settings.get("weight") == "2"


def test_nothing() -> None:
    xml = read("<memory unit='MiB'>512</memory><vcpu current='2'>4</vcpu>")
    assert xml.definition == GuestDefinition(balloon=False)
    assert (xml.maximum_kib, xml.current_kib) == (524288, 524288)
    assert xml.vcpus == {0, 1}
    assert xml.settings is None


def test_pins_of_a_transient_guest_may_be_ours_and_do_not_count() -> None:
    assert read_guest_xml(FULL, None, NAMESPACE).definition.pinned_vcpus == frozenset()


@pytest.mark.parametrize(
    ("tune", "ratio"),
    [
        ("<quota>-1</quota>", None),
        ("<quota>0</quota>", None),
        ("<quota>150000</quota>", 1.5),
        ("<global_period>10000</global_period><global_quota>5000</global_quota>", 0.5),
        ("<quota>200000</quota><global_quota>50000</global_quota>", 0.5),
    ],
)
def test_quota(tune: str, ratio: float | None) -> None:
    assert read(f"<cputune>{tune}</cputune>").definition.quota_ratio == ratio


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("", None),
        ("<devices><hostdev mode='subsystem' type='usb'/></devices>", None),
        ("<memoryBacking><hugepages/></memoryBacking>", "hugepages"),
        ("<memoryBacking><locked/></memoryBacking>", "locked memory"),
        (
            "<devices><hostdev mode='subsystem' type='pci'/></devices>",
            "host device with direct memory access",
        ),
        (
            "<devices><interface type='hostdev'/></devices>",
            "host device with direct memory access",
        ),
        ("<launchSecurity type='sev'/>", "encrypted memory"),
    ],
)
def test_memory_that_can_not_be_given_back(body: str, why: str | None) -> None:
    assert read(body).definition.unswappable == why


@pytest.mark.parametrize(
    ("tune", "nodes"),
    [
        ("<memory nodeset='0-1'/>", {0, 1}),
        ("<memory mode='strict' placement='auto'/>", None),
        ("<memory mode='preferred' nodeset='1'/>", None),
        ("<memory mode='interleave' nodeset='0-1'/>", None),
    ],
)
def test_only_strict_nodes_bind(tune: str, nodes: set[int] | None) -> None:
    assert read(f"<numatune>{tune}</numatune>").definition.memory_nodes == nodes


@pytest.mark.parametrize(
    ("model", "balloon"),
    [("virtio", True), ("virtio-non-transitional", True), ("none", False), ("xen", False)],
)
def test_only_virtio_balloons_count(model: str, balloon: bool) -> None:
    device = f"<devices><memballoon model='{model}'/></devices>"
    assert read(device).definition.balloon is balloon


def test_the_balloon_reaches_added_dimms_but_no_virtio_mem() -> None:
    devices = """<memory unit='KiB'>7340032</memory><devices>
      <memory model='dimm'><target><size unit='KiB'>1048576</size><node>0</node></target></memory>
      <memory model='virtio-mem'><target><size unit='GiB'>2</size><block unit='KiB'>2048</block>
        <requested unit='KiB'>0</requested><current unit='KiB'>0</current></target></memory>
      </devices>"""
    assert read(devices).maximum_kib == 5 * 1024**2
