"""What follows from a CPU tick that the tick does not hold: entitlement, and what lies elsewhere.

The running program need not work it out at every tick: whoever asks does, from the tick object.
"""

from collections.abc import Mapping
from typing import Any

from virtbalance.cpu.outlook import outlook
from virtbalance.cpu.promise import entitlement_now
from virtbalance.model.cpu_estimate import CpuEstimate, VcpuEstimate
from virtbalance.model.guest import VcpuKey
from virtbalance.model.topology import Pcpu, Topology
from virtbalance.telemetry.tick_json import reason_object


def with_outlook(tick: Mapping[str, Any], uuid: str) -> dict[str, Any]:
    """Return a CPU tick object in which a guest's vCPUs have two keys more.

    They are ``entitled_ratio``, and ``outlook``: a reason, or null for a vCPU that is not moved.
    Other guests' are left out: each outlook takes a look at the whole host.
    """
    estimate = estimate_of(tick)
    entitled = entitlement_now(estimate)
    vcpus = {vcpu.key: vcpu for vcpu in estimate.vcpus}
    rows = []
    for row in tick["vcpus"]:
        if row["uuid"] != uuid:
            rows.append(row)
            continue
        key = VcpuKey(row["uuid"], row["vcpu"])
        seen = None
        if row["fixed"] is None:
            seen = reason_object(outlook(vcpus[key], estimate, entitled))
        rows.append({**row, "entitled_ratio": round(entitled[key], 4), "outlook": seen})
    return {**tick, "vcpus": rows}


def estimate_of(tick: Mapping[str, Any]) -> CpuEstimate:
    """Return the estimate of a CPU tick object, as far as the object holds it.

    Missing are the histories, and of the topology what can't be used.
    """
    return CpuEstimate(
        window_s=tick["window_s"],
        topology=Topology(
            tuple(Pcpu(row["pcpu"], row["core"], row["llc"], row["node"]) for row in tick["pcpus"])
        ),
        capacity={row["pcpu"]: row["capacity"] for row in tick["pcpus"]},
        vcpus=tuple(_vcpu(row) for row in tick["vcpus"]),
    )


def _vcpu(row: Mapping[str, Any]) -> VcpuEstimate:
    return VcpuEstimate(
        key=VcpuKey(row["uuid"], row["vcpu"]),
        guest_name=row["name"],
        run_ratio=row["run_ratio"],
        wait_ratio=row["wait_ratio"],
        demand_ratio=row["demand_ratio"],
        allowed=frozenset(row["allowed"]),
        affinity=frozenset(row["cpus"]),
        weight=row["weight"],
        fixed=row["fixed"],
        steady_s=row["steady_s"],
        memory_node=row["memory_node"],
    )
