"""What a guest's XML says that matters here: limits, pins, balloon, and memory that can't move."""

from dataclasses import dataclass
from xml.etree.ElementTree import Element

from virtbalance.hypervisor.xml_tree import element_kib, parse
from virtbalance.model.cpu_list import parse_cpu_list
from virtbalance.model.guest import GuestDefinition

_DEFAULT_PERIOD_US = 100_000
_VFIO_PATHS = (
    "devices/hostdev[@type='pci']",
    "devices/hostdev[@type='mdev']",
    "devices/interface[@type='hostdev']",
    "devices/interface[@type='vdpa']",
    "devices/disk[@type='nvme']",
)


@dataclass(frozen=True, slots=True)
class GuestXml:
    """One reading of a guest's XML."""

    definition: GuestDefinition
    maximum_kib: int
    """As far as the balloon reaches: DIMMs that were added count, virtio-mem devices do not."""
    current_kib: int
    """Size of the balloon as libvirt last heard of it."""
    vcpus: frozenset[int]
    """Indices of the vCPUs that are plugged in; they may have holes."""
    settings: Element | None
    """Our metadata element."""


def read_guest_xml(live: str, inactive: str | None, namespace: str) -> GuestXml:
    """Read the live XML and the persistent definition.

    ``inactive`` is ``None`` for a transient guest: its live pins, ours among them, would show
    there, so nobody can say which are the owner's.
    """
    domain = parse(live)
    maximum_kib = element_kib(domain.find("memory")) - _virtio_mem_kib(domain)
    return GuestXml(
        definition=GuestDefinition(
            cpuset=_cpuset(domain),
            pinned_vcpus=frozenset() if inactive is None else _pinned_vcpus(parse(inactive)),
            cpu_shares=_integer(domain, "cputune/shares"),
            quota_ratio=_quota_ratio(domain),
            balloon=_balloon(domain).get("model", "none").startswith("virtio"),
            autodeflate=_balloon(domain).get("autodeflate") == "on",
            free_page_reporting=_balloon(domain).get("freePageReporting") == "on",
            unswappable=_unswappable(domain),
            memory_nodes=_strict_nodes(domain),
            stats_period_s=_stats_period_s(domain),
        ),
        maximum_kib=maximum_kib,
        current_kib=element_kib(domain.find("currentMemory")) or maximum_kib,
        vcpus=_plugged_vcpus(domain),
        settings=_settings(domain, namespace),
    )


def settings_element(xml: str, namespace: str) -> Element | None:
    """Return our metadata element of a guest's XML, if it has one."""
    return _settings(parse(xml), namespace)


def _settings(domain: Element, namespace: str) -> Element | None:
    return domain.find(f"metadata/{{{namespace}}}guest")


def _cpuset(domain: Element) -> frozenset[int] | None:
    vcpu = domain.find("vcpu")
    return parse_cpu_list(vcpu.get("cpuset", "")) or None if vcpu is not None else None


def _pinned_vcpus(inactive: Element) -> frozenset[int]:
    return frozenset(int(pin.get("vcpu", "0")) for pin in inactive.findall("cputune/vcpupin"))


def _plugged_vcpus(domain: Element) -> frozenset[int]:
    listed = domain.findall("vcpus/vcpu")
    if listed:
        return frozenset(int(v.get("id", "0")) for v in listed if v.get("enabled") == "yes")
    vcpu = domain.find("vcpu")
    if vcpu is None:
        return frozenset()
    return frozenset(range(int(vcpu.get("current") or vcpu.text or 0)))


def _quota_ratio(domain: Element) -> float | None:
    ratios = [
        quota / (_integer(domain, f"cputune/{prefix}period") or _DEFAULT_PERIOD_US)
        for prefix in ("", "global_")
        if (quota := _integer(domain, f"cputune/{prefix}quota") or 0) > 0
    ]
    return min(ratios, default=None)


def _balloon(domain: Element) -> Element:
    found = domain.find("devices/memballoon")
    return Element("memballoon") if found is None else found


def _stats_period_s(domain: Element) -> int:
    stats = _balloon(domain).find("stats")
    return 0 if stats is None else int(stats.get("period", "0"))


def _unswappable(domain: Element) -> str | None:
    if domain.find("memoryBacking/hugepages") is not None:
        return "hugepages"
    if domain.find("memoryBacking/locked") is not None:
        return "locked memory"
    if any(domain.find(path) is not None for path in _VFIO_PATHS):
        return "host device with direct memory access"
    if domain.find("launchSecurity") is not None:
        return "encrypted memory"
    return None


def _virtio_mem_kib(domain: Element) -> int:
    devices = domain.findall("devices/memory[@model='virtio-mem']/target/size")
    return sum(element_kib(size) for size in devices)


def _strict_nodes(domain: Element) -> frozenset[int] | None:
    memory = domain.find("numatune/memory")
    if memory is None or memory.get("mode", "strict") != "strict":
        return None
    return parse_cpu_list(memory.get("nodeset", "")) or None


def _integer(domain: Element, path: str) -> int | None:
    text = domain.findtext(path)
    return int(text) if text else None
