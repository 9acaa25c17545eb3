"""What would make a vCPU move: how it stands where it is, against the best place elsewhere.

Its place is the pCPU, or the set of pCPUs, that it may run on now. Elsewhere is the least loaded
other pCPU among those it may be placed on. If the pair's higher load would fall by a move, somebody
may gain; whether that is worth a move is the policy's business. If not, the figure that counts is
how much more its place would have to carry before it did.

Example: a vCPU of 0.4 shares pCPU 0 with 0.5; pCPU 1 carries 0.7. There it would find 1.1, worse
than the 0.9 here: pCPU 0 would have to carry 0.2 more.
"""

from collections.abc import Mapping

from virtbalance.cpu.load import loads
from virtbalance.model.cpu_estimate import CpuEstimate, VcpuEstimate
from virtbalance.model.cpu_list import format_cpu_list
from virtbalance.model.guest import VcpuKey
from virtbalance.model.plan import Figure, Reason

LEAST_GAIN_RATIO = 0.005
"""Less than this shows as 0.00."""


def outlook(vcpu: VcpuEstimate, estimate: CpuEstimate, entitled: Mapping[VcpuKey, float]) -> Reason:
    """Return what a vCPU would find elsewhere, and what it would take to make it better off."""
    place = vcpu.affinity & estimate.capacity.keys()
    elsewhere = (vcpu.allowed & estimate.capacity.keys()) - place
    if not place:
        return Reason("stranded", "none of the pCPUs it may run on can be used")
    here = format_cpu_list(place)
    if not elsewhere:
        text = "there is no other pCPU it may use"
        if len(place) > 1:
            text = "the kernel moves it among all the pCPUs it may use"
        return Reason("nowhere", text, {"source": here})
    total, part = loads(estimate, entitled), entitled[vcpu.key]
    room = sum(estimate.capacity[cpu] for cpu in place)
    load = sum(total[cpu] for cpu in place)
    target = min(sorted(elsewhere), key=lambda cpu: (total[cpu] + part) / estimate.capacity[cpu])
    target_room = estimate.capacity[target]
    there = (total[target] + part) / target_room
    gain = max(load / room, total[target] / target_room) - max((load - part) / room, there)
    figures: dict[str, Figure] = {
        "source": here,
        "target": target,
        "load": load / room,
        "load_there": there,
        "gain": gain,
        "lacking": room * there - load,
    }
    text = "pCPU {source} is loaded {load:.2f}, pCPU {target} would be {load_there:.2f} with it: "
    if gain > LEAST_GAIN_RATIO:
        return Reason("better", text + "{gain:.2f} lower", figures)
    return Reason("enough", text + "{source} would have to carry {lacking:.2f} more", figures)
