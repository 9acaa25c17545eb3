"""What would make a vCPU move: how it stands where it is, against the best place elsewhere.

It is the policy's own question (see ``board`` and ``search``), asked of the demands of this moment
alone: by how much would a move relieve the host, and does that exceed what the move costs? Whether
it is sure enough as well takes the demands of the last seconds, so "better" is not yet a move. If
it is not better, the figure that counts is how much more its place would have to carry before it
was.

A vCPU that may run on several pCPUs lives on them as on one large one; elsewhere is any other
pCPU that it may be placed on.

Example: a vCPU of 0.4 shares pCPU 0 with 0.5; pCPU 1 carries 0.7. There it would find 1.1, worse
than the 0.9 here. Were pCPU 0 to carry 0.2 more, the two would just change their loads by a move.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from virtbalance.cpu.board import BARRED, NOBODY, Board, Partners
from virtbalance.cpu.granularity import fold
from virtbalance.cpu.search import LEAST_GAIN_RATIO, least_gain
from virtbalance.model.cpu_estimate import CpuEstimate, VcpuEstimate
from virtbalance.model.cpu_list import format_cpu_list
from virtbalance.model.guest import VcpuKey
from virtbalance.model.plan import Figure, Reason

PRECISION = 1e-4
"""pCPUs, to which the lacking load is found."""


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
    if entitled[vcpu.key] <= LEAST_GAIN_RATIO:
        return Reason("idle", "it wants too little to relieve anybody", {"source": here})
    return _compared(vcpu, _with_homes(estimate, vcpu), entitled, here)


def _with_homes(estimate: CpuEstimate, vcpu: VcpuEstimate) -> CpuEstimate:
    """Return the estimate with the pCPUs that a vCPU may run on as one, its home."""
    place = vcpu.affinity & estimate.capacity.keys()
    if len(place) == 1:
        vcpus = (replace(v, affinity=place) if v is vcpu else v for v in estimate.vcpus)
        return replace(estimate, vcpus=tuple(vcpus))
    others = estimate.capacity.keys() - place
    return fold(estimate, {min(place): place} | {cpu: frozenset({cpu}) for cpu in others})


def _compared(
    vcpu: VcpuEstimate, estimate: CpuEstimate, entitled: Mapping[VcpuKey, float], here: str
) -> Reason:
    board = Board(estimate, [np.array([[entitled[v.key]] for v in estimate.vcpus])])
    moved = next(row for row, v in enumerate(estimate.vcpus) if v.key == vcpu.key)
    source = board.homes[moved]
    assert source is not None, "it has been given one"
    others = np.array([pcpu for pcpu in range(len(board.cpus)) if pcpu != source], dtype=np.intp)
    gains = board.gains([moved], source, Partners(others, np.full(len(others), NOBODY)))[0, 0, :, 0]
    best = int(gains.round(9).argmax())
    if gains[best] == BARRED:
        return Reason("alone", "it has pCPU {source} to itself", {"source": here})
    target, gain = int(others[best]), float(gains[best])
    cost = float(least_gain(board.cost_s(source, target), vcpu.steady_s, LEAST_GAIN_RATIO))
    loads = board.relative()[[source, target]].tolist()
    lacking = 0.0 if gain > cost else _lacking(board, moved, gain, cost)
    board.exchange(moved, target, NOBODY)
    figures: dict[str, Figure] = {
        "source": here,
        "target": board.cpus[target],
        "load": loads[0],
        "load_there": float(board.relative()[target]),
        "gain": gain,
        "cost": cost,
        "lacking": lacking,
    }
    text = "pCPU {source} is loaded {load:.2f}, pCPU {target} would be {load_there:.2f} with it: "
    if gain > cost:
        return Reason("better", text + "that relieves the host by {gain:.2f} pCPUs", figures)
    return Reason("enough", text + "{source} would have to carry {lacking:.2f} more", figures)


def _lacking(board: Board, moved: int, gain: float, cost: float) -> float:
    """Return how much more the home of a vCPU must carry before moving it is worth the cost."""
    now = board.relief(moved)

    def is_enough(more: float) -> bool:
        return gain + board.relief(moved, more) - now > cost

    low, high = 0.0, PRECISION
    while not is_enough(high):
        low, high = high, 2 * high
    while high - low > PRECISION:
        middle = (low + high) / 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high
