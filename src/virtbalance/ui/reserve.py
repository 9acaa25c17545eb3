"""The lines of ``virt-balance reserve``: how far it is, and who can't give more."""

from collections.abc import Iterator, Mapping
from typing import Any

from virtbalance.ui.text import mib

Document = Mapping[str, Any]

_ARRIVED_KIB = 4096
"""A balloon this near to its target is there."""


def progress_line(tick: Document) -> str:
    """Return how much of what is reserved is free, and who is giving."""
    host = tick["host"]
    line = f"{mib(host['reserved_free_kib'])} of {mib(host['reserved_kib'])} MiB are free"
    giving = ", ".join(
        f"{guest['name']} {mib(guest['actual_kib'])} → {mib(guest['target_kib'])}"
        for guest in tick["guests"]
        if _is_giving(guest)
    )
    return f"{line}; giving (MiB): {giving}" if giving else line


def obstacle_lines(tick: Document) -> list[str]:
    """Return for every guest how much it keeps and why."""
    return [
        f"  {guest['name']} keeps {mib(max(guest['actual_kib'], guest['target_kib']))} MiB: {why}"
        for guest in tick["guests"]
        for why in _why(guest, tick)
    ]


def _is_giving(guest: Document) -> bool:
    moving_kib = guest["actual_kib"] - guest["target_kib"]
    return not guest["fixed"] and moving_kib >= _ARRIVED_KIB


def _why(guest: Document, tick: Document) -> Iterator[str]:
    if guest["fixed"]:
        yield guest["fixed"]
        return
    if guest["target_kib"] <= guest["minimum_kib"]:
        yield "its minimum"
        return
    uuid = guest["uuid"]
    holds = [hold["text"] for hold in tick["holds"] if hold["uuid"] == uuid]
    failed = [
        f"{action['status']}: {action['text']}"
        for action in tick["actions"]
        if action["uuid"] == uuid and action["status"] not in ("done", "planned")
    ]
    refused = [note["reason"] for note in tick["amendments"] if note["uuid"] == uuid]
    why = holds or failed or [reason["figures"].get("why", reason["text"]) for reason in refused]
    if _is_giving(guest):
        why = [f"its balloon is on its way to {mib(guest['target_kib'])} MiB"]
    wishes = [wish["reason"]["text"] for wish in tick["desired"] if wish["uuid"] == uuid]
    yield from why or wishes or ["it needs that much"]
