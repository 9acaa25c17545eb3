"""The lines of ``virt-balance status`` for one program."""

from collections.abc import Mapping, Sequence
from typing import Any

from virtbalance.model.cpu_list import format_cpu_list
from virtbalance.ui.text import mib, table

_BALLOON_OPTIONS = {"autodeflate": "autodeflate", "free_page_reporting": "freePageReporting"}
"""By key of a guest in a tick; libvirt can change neither while the guest runs."""


def status_lines(document: Mapping[str, Any]) -> list[str]:
    """Return the lines for one last-tick document with its ``host``, ``role``, ``running``."""
    tick = document["last_tick"]
    lines = [_headline(document)]
    if document["counts"]:
        counts = ", ".join(f"{kind} {number}" for kind, number in document["counts"].items())
        lines.append(f"  counted: {counts}")
    if document["last_notice"]:
        lines.append(f"  last notice: {document['last_notice']['text']}")
    if tick is None:
        return lines
    rows = _vcpu_table(tick["vcpus"]) if "vcpus" in tick else _guest_table(tick["guests"])
    lines += (f"  {row}" for row in rows)
    lines += _memory_lines(tick) if "vcpus" not in tick else []
    lines += (f"  held: {hold['name'] or hold['uuid']}: {hold['text']}" for hold in tick["holds"])
    lines += (f"  last: {_action(action)}" for action in tick["actions"])
    return lines


def _memory_lines(tick: Mapping[str, Any]) -> list[str]:
    """Return what there is to know besides the table: reservations, balloons with options off."""
    host = tick["host"]
    lines = []
    if host["reserved_kib"]:
        free, reserved = mib(host["reserved_free_kib"]), mib(host["reserved_kib"])
        lines.append(f"  reserved: {reserved} MiB for guests to come, {free} free")
    lines += (
        f"  {compartment['name']}: budget {mib(compartment['budget_kib'])} MiB"
        for compartment in host["compartments"]
    )
    if host["shortfall_kib"]:
        lines.append(f"  the minima exceed the budget by {mib(host['shortfall_kib'])} MiB")
    balloons = [guest for guest in tick["guests"] if guest["balloon"]]
    off = {
        option: [guest["name"] for guest in balloons if not guest[key]]
        for key, option in _BALLOON_OPTIONS.items()
    }
    lines += (f"  {option} is off: {', '.join(names)}" for option, names in off.items() if names)
    missing = " ".join(f"{option}='on'" for option, names in off.items() if names)
    if missing:
        edit = (
            f"""EDITOR="sed -i \\"s/<memballoon model='virtio'/& {missing}/\\"" virsh edit GUEST"""
        )
        lines.append(f"    on from its next start: {edit}")
    return lines


def _action(action: Mapping[str, Any]) -> str:
    return f"{action['action']} {action['name']} [{action['status']}]: {action['reason']['text']}"


def _headline(document: Mapping[str, Any]) -> str:
    tick = document["last_tick"]
    state = f"running (process {document['pid']})" if document["running"] else "not running"
    if document["running"] and not document["connected"]:
        state += ", connection lost"
    if document["dry_run"]:
        state += ", dry run"
    policy = f", policy {tick['policy']}, tick {tick['tick']}" if tick else ""
    return (
        f"{document['role']} on {document['host']}: {state}{policy}, {document['age_s']:.0f} s ago"
    )


def _vcpu_table(vcpus: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [
        (
            f"{vcpu['name']}/{vcpu['vcpu']}",
            format_cpu_list(vcpu["cpus"]),
            f"{vcpu['run_ratio']:.2f}",
            "?" if vcpu["wait_ratio"] is None else f"{vcpu['wait_ratio']:.2f}",
            f"{vcpu['demand_ratio']:.2f}",
            vcpu["fixed"] or "",
        )
        for vcpu in vcpus
    ]
    return table(("guest/vCPU", "on", "run", "wait", "wants", ""), rows)


def _guest_table(guests: Sequence[Mapping[str, Any]]) -> list[str]:
    keys = ("actual_kib", "target_kib", "used_kib", "usable_kib", "hard_kib", "maximum_kib")
    rows = [
        (guest["name"], *(mib(guest[key]) for key in keys), guest["fixed"] or "")
        for guest in guests
    ]
    return table(("guest (MiB)", "has", "target", "used", "usable", "needs", "max", ""), rows)
