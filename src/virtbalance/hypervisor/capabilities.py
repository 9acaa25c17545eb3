"""What libvirt's capabilities XML says of a host: its CPUs, nodes and UUID (for remote hosts)."""

from collections.abc import Mapping, Sequence
from xml.etree.ElementTree import Element

from virtbalance.hypervisor.xml_tree import element_kib, parse
from virtbalance.model.cpu_list import parse_cpu_list
from virtbalance.model.topology import NumaNode, Pcpu, Topology


def topology_from_capabilities(xml: str, cpu_map: Sequence[bool]) -> Topology:
    """Build the topology of a host that we can't look at ourselves.

    A CPU is online if libvirt's map says so; one beyond the end of the map can't be addressed in
    an affinity mask and counts as offline. Isolation and speeds are unknown from afar.
    """
    host = parse(xml).find("host")
    cells = [] if host is None else host.findall("topology/cells/cell")
    caches = _last_level_caches(host)
    pcpus = {pcpu.id: pcpu for cell in cells for pcpu in _pcpus_of_cell(cell, caches, cpu_map)} or {
        i: Pcpu(id=i, core=i, llc=0, node=0, online=on) for i, on in enumerate(cpu_map)
    }
    nodes = (NumaNode(_int(cell, "id"), element_kib(cell.find("memory"))) for cell in cells)
    return Topology(
        tuple(pcpus[cpu] for cpu in sorted(pcpus)),
        tuple(sorted(nodes, key=lambda node: node.id)),
        len(cpu_map),
    )


def host_uuid(xml: str) -> str | None:
    """Return the host's UUID."""
    return parse(xml).findtext("host/uuid")


def _pcpus_of_cell(
    cell: Element, caches: Sequence[frozenset[int]], cpu_map: Sequence[bool]
) -> list[Pcpu]:
    cpus = {_int(cpu, "id"): cpu for cpu in cell.findall("cpus/cpu")}
    packages = _packages(cpus)
    return [
        Pcpu(
            id=number,
            core=min(parse_cpu_list(cpu.get("siblings", "")), default=number),
            llc=min(next((cache for cache in caches if number in cache), packages[number])),
            node=_int(cell, "id"),
            online=number < len(cpu_map) and cpu_map[number],
        )
        for number, cpu in cpus.items()
    ]


def _packages(cpus: Mapping[int, Element]) -> dict[int, set[int]]:
    """Which CPUs sit in the same die: stands in for the cache where that is not told."""
    members: dict[tuple[str | None, str | None], set[int]] = {}
    for number, cpu in cpus.items():
        members.setdefault((cpu.get("socket_id"), cpu.get("die_id")), set()).add(number)
    return {number: group for group in members.values() for number in group}


def _last_level_caches(host: Element | None) -> list[frozenset[int]]:
    banks = [] if host is None else host.findall("cache/bank")
    last = max((_int(bank, "level") for bank in banks), default=0)
    return [
        parse_cpu_list(bank.get("cpus", ""))
        for bank in banks
        if _int(bank, "level") == last and bank.get("type") != "code"
    ]


def _int(element: Element, name: str) -> int:
    return int(element.get(name, "0"))
