"""The yardstick: the best static placement in hindsight, one pCPU for each vCPU.

It knows every demand beforehand and never moves anybody. Cost of a placement: demand above a pCPU's
capacity, summed over pCPUs and moments, and a little of the highest mean load, so that ties go to
the even one. The start is longest-first with moves and swaps while they help. That is the answer
for large cases, and where no placement can be noticeably better; other cases are solved by HiGHS,
which gives up after a number of branches and not after a time: the answer is the same everywhere.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from virtbalance.bench.recording import Floats, Recording
from virtbalance.model.cpu_estimate import CpuEstimate
from virtbalance.model.guest import VcpuKey
from virtbalance.model.plan import CpuPlan, Pin, Reason

_MOMENTS = 24
_SOLVABLE = 400
"""vCPUs x pCPUs up to which the exact answer is looked for."""
_BRANCHES = 2000
_EVENNESS = 0.01
_ROUNDS = 300
_SOURCES = 8
_LEAST_GAIN = 1e-7
_NOTICEABLE = 1e-4

Placement = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Static:
    """A policy that knows where everybody belongs, and says so once for each."""

    homes: dict[VcpuKey, int]
    name: str = "oracle"

    def decide(
        self, state: Any, estimate: CpuEstimate, config: Any, now_s: float
    ) -> tuple[CpuPlan, Any]:
        """Pin whoever is not where it belongs."""
        del config, now_s
        reason = Reason("oracle", "its place in hindsight")
        pins = tuple(
            Pin(vcpu.key, frozenset({self.homes[vcpu.key]}), reason)
            for vcpu in estimate.vcpus
            if vcpu.key in self.homes and vcpu.home != self.homes[vcpu.key]
        )
        return CpuPlan(pins), state


def static_placement(seen: Recording) -> Static:
    """Return the policy for a host whose whole course is known."""
    topology = seen.facts.topology
    cpus = sorted(topology.usable)
    capacity = np.array([topology.by_id[cpu].speed_ratio for cpu in cpus])
    place = best_placement(moments(np.nan_to_num(seen.demand)), capacity)
    return Static({key: cpus[p] for key, p in zip(seen.vcpus, place, strict=True)})


def moments(demand: Floats) -> Floats:
    """Return mean demands over at most some tens of equal parts of the time."""
    parts = np.array_split(demand, min(_MOMENTS, max(1, len(demand))))
    return np.array([part.mean(axis=0) for part in parts if len(part)])


def best_placement(demand: Floats, capacity: Floats) -> Placement:
    """Return a pCPU index for each vCPU; ``demand`` is moments x vCPUs."""
    found = _searched(demand, capacity)
    costs = cost(demand, capacity, found)
    if (
        costs > least_cost(demand, capacity) + _NOTICEABLE
        and demand.shape[1] * len(capacity) <= _SOLVABLE
    ):
        exact = _solved(demand, capacity)
        if exact is not None and cost(demand, capacity, exact) < costs:
            return exact
    return found


def cost(demand: Floats, capacity: Floats, place: Placement) -> float:
    """Return what a placement costs."""
    loads = _loads(demand, len(capacity), place)
    over = np.maximum(0.0, loads - capacity).sum() / len(demand)
    return float(over + _EVENNESS * (loads.mean(axis=0) / capacity).max())


def least_cost(demand: Floats, capacity: Floats) -> float:
    """Return what no placement can cost less than: all of it spread like water."""
    over = np.maximum(0.0, demand.sum(axis=1) - capacity.sum()).mean()
    mean = demand.mean(axis=0)
    highest = max(mean.sum() / capacity.sum(), mean.max(initial=0.0) / capacity.max())
    return float(over + _EVENNESS * highest)


def _loads(demand: Floats, pcpus: int, place: Placement) -> Floats:
    member = np.zeros((demand.shape[1], pcpus))
    member[np.arange(len(place)), place] = 1.0
    return np.asarray(demand @ member)


def _searched(demand: Floats, capacity: Floats) -> Placement:
    place = _longest_first(demand, capacity)
    loads = _loads(demand, len(capacity), place)
    for _ in range(_ROUNDS):
        if not _improved(demand, capacity, place, loads):
            break
    return place


def _longest_first(demand: Floats, capacity: Floats) -> Placement:
    mean = demand.mean(axis=0)
    place = np.zeros(len(mean), np.int64)
    height = np.zeros(len(capacity))
    for vcpu in np.argsort(-mean, kind="stable"):
        place[vcpu] = target = int(np.argmin((height + mean[vcpu]) / capacity))
        height[target] += mean[vcpu]
    return place


def _improved(demand: Floats, capacity: Floats, place: Placement, loads: Floats) -> bool:
    """Make the best move or swap away from one of the costliest pCPUs; say if there was one."""
    now = _costs(loads, capacity)
    for source in np.argsort(-now, kind="stable")[:_SOURCES]:
        best_gain, mine, theirs, target = _LEAST_GAIN, -1, -1, -1
        elsewhere = np.flatnonzero(place != source)
        empty = np.setdiff1d(np.arange(len(capacity)), [source])
        # What comes back: nothing, for a move to each pCPU, or a vCPU from where it lives.
        backs = np.concatenate([np.full(len(empty), -1), elsewhere])
        targets = np.concatenate([empty, place[elsewhere]])
        back = np.where(backs >= 0, demand[:, backs], 0.0)
        for vcpu in np.flatnonzero(place == source):
            delta = demand[:, [vcpu]] - back
            after = _costs(loads[:, [source]] - delta, capacity[[source]])
            after = after + _costs(loads[:, targets] + delta, capacity[targets])
            gains = now[source] + now[targets] - after
            at = int(np.argmax(gains))
            if gains[at] > best_gain:
                best_gain, mine = float(gains[at]), int(vcpu)
                theirs, target = int(backs[at]), int(targets[at])
        if mine >= 0:
            moved = demand[:, mine] - (demand[:, theirs] if theirs >= 0 else 0.0)
            loads[:, source] -= moved
            loads[:, target] += moved
            place[mine] = target
            if theirs >= 0:
                place[theirs] = source
            return True
    return False


def _costs(load: Floats, room: Floats) -> Floats:
    """Return the cost of each column: one pCPU's loads over time."""
    over = np.maximum(0.0, load - room[None]).sum(axis=0) / len(load)
    return np.asarray(over + _EVENNESS * (load.mean(axis=0) / room) ** 2)


def _solved(demand: Floats, capacity: Floats) -> Placement | None:
    """Return the best answer that HiGHS finds; ``None`` if it finds none.

    Variables: x[v, p] in {0, 1}, over[t, p] >= 0, and the highest mean load.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import coo_array

    times, vcpus = demand.shape
    pcpus = len(capacity)
    placed, over = vcpus * pcpus, times * pcpus
    count = placed + over + 1
    objective = np.zeros(count)
    objective[placed : placed + over] = 1.0 / times
    objective[-1] = _EVENNESS
    rows: list[tuple[int, int, float]] = [
        (v, v * pcpus + p, 1.0) for v in range(vcpus) for p in range(pcpus)
    ]
    low, high = [1.0] * vcpus, [1.0] * vcpus
    for t in range(times):
        for p in range(pcpus):
            row = len(low)
            rows += [(row, v * pcpus + p, float(demand[t, v])) for v in range(vcpus)]
            rows.append((row, placed + t * pcpus + p, -1.0))
            low.append(-np.inf)
            high.append(float(capacity[p]))
    mean = demand.mean(axis=0)
    for p in range(pcpus):
        row = len(low)
        rows += [(row, v * pcpus + p, float(mean[v] / capacity[p])) for v in range(vcpus)]
        rows.append((row, count - 1, -1.0))
        low.append(-np.inf)
        high.append(0.0)
    at_rows, at_columns, values = zip(*rows, strict=True)
    matrix = coo_array((values, (at_rows, at_columns)), shape=(len(low), count)).tocsc()
    upper = np.concatenate([np.ones(placed), np.full(over + 1, np.inf)])
    solution = milp(
        objective,
        constraints=LinearConstraint(matrix, low, high),
        integrality=np.concatenate([np.ones(placed), np.zeros(over + 1)]),
        bounds=Bounds(np.zeros(count), upper),
        options={"node_limit": _BRANCHES},
    )
    if solution.x is None:
        return None
    return np.asarray(solution.x[:placed].reshape(vcpus, pcpus).argmax(axis=1), np.int64)
