"""The lines of ``virt-balance explain``: one guest, what it gets, wants and may have, and why."""

from collections.abc import Iterable, Mapping
from typing import Any

from virtbalance.model.cpu_list import format_cpu_list
from virtbalance.ui.text import mib

Document = Mapping[str, Any]


def guest_names(tick: Document) -> dict[str, str]:
    """Return the guests of a tick object, name by UUID."""
    rows = tick["vcpus"] if tick["role"] == "cpu" else tick["guests"]
    return {row["uuid"]: row["name"] for row in rows}


def guest_part(tick: Document, uuid: str) -> dict[str, Any]:
    """Return what a tick object says of one guest, for ``--json``."""
    kept = ("role", "policy", "tick", "time")
    keys = ("vcpus", "guests", "desired", "actions", "considered", "amendments", "holds")
    return {key: tick[key] for key in kept} | {
        key: [row for row in tick[key] if row["uuid"] == uuid] for key in keys if key in tick
    }


def explain_lines(tick: Document, uuid: str, last_changes: Document) -> list[str]:
    """Return what one program has to say about one guest.

    A CPU tick must have gone through ``telemetry.outlook_json.with_outlook``.
    ``last_changes`` are this guest's latest changes by subject, as ``telemetry.last_tick`` keeps
    them.
    """
    part = guest_part(tick, uuid)
    lines = [f"{tick['role']}, policy {tick['policy']}, tick {tick['tick']} of {tick['time']}"]
    lines += (f"  held: {hold['text']}" for hold in part["holds"])
    if tick["role"] == "cpu":
        for vcpu in part["vcpus"]:
            lines += _vcpu_lines(vcpu, part, last_changes)
    else:
        for guest in part["guests"]:
            lines += _memory_lines(guest, part, last_changes)
    return lines


def _vcpu_lines(vcpu: Document, part: Document, last_changes: Document) -> list[str]:
    waited = "unknown" if vcpu["wait_ratio"] is None else f"{vcpu['wait_ratio']:.2f}"
    subject = str(vcpu["vcpu"])
    actions = [a for a in part["actions"] if a["action"] == "pin" and a["vcpu"] == vcpu["vcpu"]]
    return [
        (
            f"  vCPU {subject}: got {vcpu['run_ratio']:.2f} of a pCPU, waited {waited}, "
            f"wants {vcpu['demand_ratio']:.2f}, is entitled to {vcpu['entitled_ratio']:.2f}"
        ),
        (
            f"    runs on pCPU {format_cpu_list(frozenset(vcpu['cpus']))}, "
            f"may be put on {format_cpu_list(frozenset(vcpu['allowed']))}"
        ),
        *_standing(vcpu["fixed"], actions, part["amendments"]),
        *_elsewhere(vcpu, part),
        *_last_change(last_changes.get(subject)),
    ]


def _elsewhere(vcpu: Document, part: Document) -> list[str]:
    """Return what it would find on other pCPUs, and what the policy thought of moving it."""
    lines = [f"    elsewhere: {vcpu['outlook']['text']}"] if vcpu["outlook"] else []
    weighed = [pin for pin in part["considered"] if pin["vcpu"] == vcpu["vcpu"]]
    return lines + [
        f"    not worth it: pCPU {format_cpu_list(frozenset(pin['cpus']))}: {pin['reason']['text']}"
        for pin in weighed
    ]


def _memory_lines(guest: Document, part: Document, last_changes: Document) -> list[str]:
    actions = [a for a in part["actions"] if a["action"] == "resize"]
    return [
        (
            f"  has {mib(guest['actual_kib'])} MiB (target {mib(guest['target_kib'])}, between "
            f"{mib(guest['minimum_kib'])} and {mib(guest['maximum_kib'])}), uses "
            f"{mib(guest['used_kib'])}, could spare {mib(guest['usable_kib'])}"
        ),
        (
            f"  claims: {mib(guest['minimum_kib'])} at least, {mib(guest['hard_kib'])} at once, "
            f"{mib(guest['soft_kib'])} to be at ease, {mib(guest['cache_kib'])} with its cache; "
            f"weight {guest['weight']:g}"
        ),
        *_signs(guest),
        *(line for wish in part["desired"] for line in _wish_lines(wish)),
        *_standing(guest["fixed"], actions, part["amendments"]),
        *([f"    may only grow: {guest['growable_only']}"] if guest["growable_only"] else []),
        *_changes(last_changes.get("memory")),
        *_changes(last_changes.get("statistics")),
    ]


def _signs(guest: Document) -> list[str]:
    """Return what speaks for more than it uses."""
    signs = {
        f"grows by {guest['slope_kib_s'] / 1024:.0f} MiB/s": guest["slope_kib_s"] >= 1024,
        f"had {mib(guest['peak_kib'])} MiB in use lately": (
            guest["peak_kib"] > guest["used_kib"] + 1024
        ),
        "is under pressure (swaps in, or faults heavily)": guest["pressure"],
        "uses all it has, so how much more it wants is a guess": guest["need_hidden"],
        "has swap": guest["swaps"],
    }
    found = [sign for sign, is_so in signs.items() if is_so]
    return [f"  it {', '.join(found)}"] if found else []


def _wish_lines(wish: Document) -> list[str]:
    """Return the size it should have, and how the division came to it if the policy tells."""
    lines = [f"  wish: {mib(wish['size_kib'])} MiB: {wish['reason']['text']}"]
    figures = wish["reason"]["figures"]
    if "tier" in figures and "limit" in figures:
        tier, level_mib = figures["tier"], figures.get("level_mib")
        met = "all needs are met" if tier == "cache" else f"not every {tier} fits"
        level = "" if level_mib is None else f", cut at {level_mib} MiB per weight"
        lines.append(f"    tier: {met}{level}; bound by its {figures['limit']}")
    return lines


def _standing(
    fixed: str | None, actions: Iterable[Document], amendments: Iterable[Document]
) -> list[str]:
    """Return what happens to it in this tick."""
    if fixed:
        return [f"    left alone: {fixed}"]
    lines = [f"    now: {words(action)}" for action in actions]
    if not lines:
        lines = [f"    guard: {note['reason']['text']}" for note in amendments]
    return lines or ["    stays as it is: no change is worth it"]


def _last_change(change: Document | None) -> list[str]:
    return [f"    last change, {change['time']}: {words(change)}"] if change else []


def _changes(change: Document | None) -> list[str]:
    earlier = change.get("earlier", ()) if change else ()
    return _last_change(change) + [f"    before, {one['time']}: {words(one)}" for one in earlier]


def words(action: Document) -> str:
    """Return an action of a tick object in words, with how it ended and why."""
    match action["action"]:
        case "pin":
            done = f"pinned to pCPU {format_cpu_list(frozenset(action['cpus']))}"
        case "resize":
            done = f"set to {mib(action['target_kib'])} MiB"
        case _:
            done = f"made to report every {action['period_s']} s"
    ended = "" if action["status"] == "done" else f" [{action['status']}]"
    return f"{done}{ended}: {action['reason']['text']}"
