"""A tick as a JSON object: what ``--json`` prints and what the last-tick file holds.

The object is a stable interface (``"format": 1``): keys may be added, never renamed or removed.
Times are in the unit that stands in their key, ratios are of one pCPU, memory is in KiB.
"""

import datetime as dt
import math
from typing import Any

from virtbalance.model.cpu_estimate import CpuEstimate, VcpuEstimate
from virtbalance.model.guest import GuestDefinition, GuestState
from virtbalance.model.hold import Hold
from virtbalance.model.memory_estimate import GuestMemoryEstimate, MemoryEstimate
from virtbalance.model.plan import (
    Action,
    Amendment,
    DesiredSize,
    Pin,
    Reason,
    Resize,
    SetStatsPeriod,
    guest_of,
)
from virtbalance.model.snapshot import Snapshot
from virtbalance.model.tick import Event, Outcome, Tick
from virtbalance.model.topology import Pcpu

FORMAT = 1


def tick_object(tick: Tick) -> dict[str, Any]:
    """Return the whole tick as plain data."""
    names = {guest.uuid: guest.name for guest in tick.snapshot.guests}
    return {
        "format": FORMAT,
        "role": str(tick.role),
        "policy": tick.policy,
        "tick": tick.number,
        "time": _iso(tick.snapshot.wall_s),
        "monotonic_s": round(tick.snapshot.taken_ns / 1e9, 3),
        "period_s": tick.period_s,
        "took_ms": {
            "sense": _ms(tick.sense_ns),
            "decide": _ms(tick.decide_ns),
            "act": _ms(tick.act_ns),
        },
        "running": sum(g.state is GuestState.RUNNING for g in tick.snapshot.guests),
        **_estimate(tick.estimate, tick.snapshot),
        "desired": [_desired(size, names) for size in getattr(tick.plan, "sizes", ())],
        "actions": [_outcome(outcome, names) for outcome in tick.outcomes],
        "considered": [_considered(pin, names) for pin in getattr(tick.plan, "considered", ())],
        "amendments": [_amendment(amendment, names) for amendment in tick.verdict.amendments],
        "holds": [_hold(uuid, hold, names) for uuid, hold in sorted(tick.holds.items())],
        "events": [event_object(event) for event in tick.events],
    }


def event_object(event: Event) -> dict[str, Any]:
    """Return an event as plain data."""
    return {
        "kind": event.kind,
        "text": event.text,
        "uuid": event.uuid,
        "figures": dict(event.figures),
    }


def reason_object(reason: Reason) -> dict[str, Any]:
    """Return a reason as plain data."""
    return {"rule": reason.rule, "text": str(reason), "figures": dict(reason.figures)}


def _estimate(estimate: CpuEstimate | MemoryEstimate, snapshot: Snapshot) -> dict[str, Any]:
    samples = {guest.uuid: guest for guest in snapshot.guests}
    states = {uuid: str(guest.state) for uuid, guest in samples.items()}
    if isinstance(estimate, CpuEstimate):
        return {
            "window_s": round(estimate.window_s, 3),
            "pcpus": [
                _pcpu(estimate.topology.by_id[pcpu], capacity)
                for pcpu, capacity in sorted(estimate.capacity.items())
            ],
            "vcpus": [_vcpu(vcpu, states) for vcpu in estimate.vcpus],
        }
    return {
        "host": {
            "total_kib": estimate.host.total_kib,
            "available_kib": estimate.host.available_kib,
            "budget_kib": estimate.budget_kib,
            "reserve_kib": estimate.reserve_kib,
            "other_kib": estimate.other_kib,
            "pool_kib": estimate.pool_kib,
            "committed_kib": estimate.committed_kib,
            "shortfall_kib": estimate.shortfall_kib,
            "reserved_kib": estimate.reserved_kib,
            "reserved_free_kib": estimate.reserved_free_kib,
            "compartments": [
                {
                    "name": compartment.name,
                    "budget_kib": compartment.budget_kib,
                    "guests": sorted(compartment.guests),
                }
                for compartment in estimate.compartments
            ],
        },
        "guests": [
            {**_guest_memory(guest, states), **_balloon(samples[guest.uuid].definition)}
            for guest in estimate.guests
        ],
    }


def _pcpu(pcpu: Pcpu, capacity: float) -> dict[str, Any]:
    return {
        "pcpu": pcpu.id,
        "core": pcpu.core,
        "llc": pcpu.llc,
        "node": pcpu.node,
        "capacity": round(capacity, 4),
    }


def _vcpu(vcpu: VcpuEstimate, states: dict[str, str]) -> dict[str, Any]:
    return {
        "uuid": vcpu.key.uuid,
        "name": vcpu.guest_name,
        "state": states.get(vcpu.key.uuid),
        "vcpu": vcpu.key.vcpu,
        "run_ratio": round(vcpu.run_ratio, 4),
        "wait_ratio": None if vcpu.wait_ratio is None else round(vcpu.wait_ratio, 4),
        "demand_ratio": round(vcpu.demand_ratio, 4),
        "steady_s": round(vcpu.steady_s, 3),
        "weight": vcpu.weight,
        "memory_node": vcpu.memory_node,
        "cpus": sorted(vcpu.affinity),
        "allowed": sorted(vcpu.allowed),
        "fixed": vcpu.fixed,
    }


def _guest_memory(guest: GuestMemoryEstimate, states: dict[str, str]) -> dict[str, Any]:
    return {
        "uuid": guest.uuid,
        "name": guest.guest_name,
        "state": states.get(guest.uuid),
        "minimum_kib": guest.minimum_kib,
        "maximum_kib": guest.maximum_kib,
        "actual_kib": guest.actual_kib,
        "target_kib": guest.target_kib,
        "used_kib": guest.used_kib,
        "usable_kib": guest.usable_kib,
        "unused_kib": guest.unused_kib,
        "hard_kib": guest.hard_kib,
        "soft_kib": guest.soft_kib,
        "cache_kib": guest.cache_kib,
        "peak_kib": guest.peak_kib,
        "lead_kib": guest.lead_kib,
        "slope_kib_s": round(guest.slope_kib_s, 1),
        "pressure": guest.pressure,
        "need_hidden": guest.hidden,
        "swaps": guest.swaps,
        "rss_kib": guest.rss_kib,
        "charge_kib": guest.charge_kib,
        "weight": guest.weight,
        "fixed": guest.fixed,
        "growable_only": guest.growable_only,
    }


def _balloon(definition: GuestDefinition) -> dict[str, Any]:
    return {
        "balloon": definition.balloon,
        "autodeflate": definition.autodeflate,
        "free_page_reporting": definition.free_page_reporting,
    }


def _desired(size: DesiredSize, names: dict[str, str]) -> dict[str, Any]:
    return {
        "uuid": size.uuid,
        "name": names.get(size.uuid),
        "size_kib": size.size_kib,
        "reason": reason_object(size.reason),
    }


def _considered(pin: Pin, names: dict[str, str]) -> dict[str, Any]:
    about = {"uuid": pin.vcpu.uuid, "name": names.get(pin.vcpu.uuid)}
    return {**about, **_action(pin), "reason": reason_object(pin.reason)}


def _outcome(outcome: Outcome, names: dict[str, str]) -> dict[str, Any]:
    uuid = guest_of(outcome.action)
    return {
        "uuid": uuid,
        "name": names.get(uuid),
        **_action(outcome.action),
        "status": str(outcome.status),
        "text": outcome.text,
        "took_ms": _ms(outcome.took_ns),
        "reason": reason_object(outcome.action.reason),
    }


def _action(action: Action) -> dict[str, Any]:
    match action:
        case Pin(vcpu=key, cpus=cpus):
            return {"action": "pin", "vcpu": key.vcpu, "cpus": sorted(cpus)}
        case Resize(target_kib=target_kib):
            return {"action": "resize", "target_kib": target_kib}
        case SetStatsPeriod(period_s=period_s):
            return {"action": "set-stats-period", "period_s": period_s}


def _amendment(amendment: Amendment, names: dict[str, str]) -> dict[str, Any]:
    return {
        "uuid": amendment.uuid,
        "name": names.get(amendment.uuid),
        "asked": amendment.asked,
        "granted": amendment.granted,
        "reason": reason_object(amendment.reason),
    }


def _hold(uuid: str, hold: Hold, names: dict[str, str]) -> dict[str, Any]:
    until_s = None if math.isinf(hold.until_s) else round(hold.until_s, 3)
    return {"uuid": uuid, "name": names.get(uuid), "until_monotonic_s": until_s, "text": hold.text}


def _iso(wall_s: float) -> str:
    moment = dt.datetime.fromtimestamp(wall_s, dt.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _ms(duration_ns: int) -> float:
    return round(duration_ns / 1e6, 3)
