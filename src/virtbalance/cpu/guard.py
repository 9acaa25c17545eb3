"""The safety envelope around every CPU policy: what is refused, and the order of the rest.

Whatever a policy answers, no vCPU gets an empty mask or a CPU it is not allowed, nobody moves a
vCPU that is fixed or held, and no tick makes more changes than the budget. An answer of the wrong
type is refused with an amendment, never with an exception.

Order: moves into the least loaded pCPU first. Two vCPUs that change places pass through the union:
the first may run on both pCPUs, the second moves, the first moves. So neither pCPU carries both
on the way. The step through the union is not a change of its own in the budget.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from virtbalance.cpu.load import imbalance, loads
from virtbalance.cpu.settings import GuardSettings
from virtbalance.model.cpu_estimate import CpuEstimate, VcpuEstimate
from virtbalance.model.guest import VcpuKey
from virtbalance.model.hold import Hold
from virtbalance.model.plan import Amendment, CpuPlan, Pin, Reason, Verdict

Unit = tuple[Pin, ...]
"""What is granted or refused as one: a pin, or two that change places."""


@dataclass(frozen=True, slots=True)
class GuardState:
    """When each vCPU was last allowed to move; only as long as it matters."""

    moved_s: Mapping[VcpuKey, float] = field(default_factory=dict)


def guard(
    state: GuardState | None,
    estimate: CpuEstimate,
    plan: CpuPlan,
    holds: Mapping[str, Hold],
    settings: GuardSettings,
    now_s: float,
) -> tuple[Verdict, GuardState]:
    """Return what of the plan may be done, in order, and what was refused and why."""
    moved_s = dict(state.moved_s) if state else {}
    vcpus = {vcpu.key: vcpu for vcpu in estimate.vcpus}
    amendments: list[Amendment] = []
    proper: list[Pin] = []
    seen: set[VcpuKey] = set()
    for item in _items(plan, amendments):
        objection = _objection(item, vcpus, estimate, holds, now_s, seen)
        if objection is not None:
            amendments.append(_refusal(item, vcpus, objection))
            continue
        assert isinstance(item, Pin)
        seen.add(item.vcpu)
        proper.append(item)
    granted: list[Unit] = []
    left = budget(estimate, settings)
    for unit in _units(proper, vcpus):
        objection = _too_soon(unit, vcpus, moved_s, settings, now_s)
        if len(unit) > left:
            objection = Reason("budget", "no more changes in this tick")
        if objection is not None:
            amendments.extend(_refusal(pin, vcpus, objection) for pin in unit)
            continue
        granted.append(unit)
        left -= len(unit)
        moved_s |= {pin.vcpu: now_s for pin in unit}
    actions = tuple(_in_order(granted, vcpus, estimate))
    kept = {
        key: at_s
        for key, at_s in moved_s.items()
        if key in vcpus and now_s - at_s < settings.cooldown_s
    }
    return Verdict(actions, tuple(amendments)), GuardState(kept)


def budget(estimate: CpuEstimate, settings: GuardSettings) -> int:
    """Return how many pins may change in this tick."""
    count = len(estimate.vcpus)
    usual = max(settings.pins, int(settings.pins_ratio * count))
    if not imbalance(estimate).gross:
        return usual
    return max(2 * usual, settings.gross_pins)


def _items(plan: object, amendments: list[Amendment]) -> tuple[object, ...]:
    """Return the plan's entries, whatever they are."""
    pins = getattr(plan, "pins", None) if isinstance(plan, CpuPlan) else None
    if isinstance(pins, tuple | list):
        return tuple(pins)
    text = "the policy's answer is no plan but a {kind}"
    kind = type(plan).__name__ if pins is None else f"plan of {type(pins).__name__}"
    amendments.append(Amendment("", "a plan", None, Reason("nonsense", text, {"kind": kind})))
    return ()


def _objection(
    item: object,
    vcpus: Mapping[VcpuKey, VcpuEstimate],
    estimate: CpuEstimate,
    holds: Mapping[str, Hold],
    now_s: float,
    seen: set[VcpuKey],
) -> Reason | None:
    """Return why an entry can't be done at all; the first reason that holds."""
    if not _well_formed(item):
        return Reason("nonsense", "not a pin of a vCPU to a set of CPU numbers with a reason")
    assert isinstance(item, Pin)
    vcpu = vcpus.get(item.vcpu)
    if vcpu is None:
        return Reason("unknown", "there is no such vCPU")
    hold = holds.get(item.vcpu.uuid)
    why = hold.text if hold is not None and now_s < hold.until_s else vcpu.fixed
    foreign = item.cpus - (vcpu.allowed & estimate.topology.usable)
    figures = {"why": why, "cpus": _list(foreign)}
    objections = (
        (item.vcpu in seen, "duplicate", "the plan names this vCPU twice; the first stands"),
        (why is not None, "fixed", "must not be moved: {why}"),
        (not item.cpus, "empty", "an empty set of CPUs"),
        (bool(foreign), "foreign", "may not run on CPU {cpus}"),
        (item.cpus == vcpu.affinity, "no-change", "is there already"),
    )
    return next((Reason(rule, text, figures) for yes, rule, text in objections if yes), None)


def _well_formed(item: object) -> bool:
    return (
        isinstance(item, Pin)
        and isinstance(item.vcpu, tuple)
        and [type(part) for part in item.vcpu] == [str, int]
        and isinstance(item.vcpu, VcpuKey)
        and isinstance(item.cpus, frozenset)
        and all(type(cpu) is int for cpu in item.cpus)
        and isinstance(item.reason, Reason)
    )


def _units(pins: list[Pin], vcpus: Mapping[VcpuKey, VcpuEstimate]) -> Iterator[Unit]:
    """Yield the pins in the plan's order, those that change places with another as one."""
    waiting: dict[tuple[frozenset[int], frozenset[int]], list[Pin]] = defaultdict(list)
    for pin in pins:
        waiting[vcpus[pin.vcpu].affinity, pin.cpus].append(pin)
    done: set[VcpuKey] = set()
    for pin in pins:
        if pin.vcpu in done:
            continue
        there = vcpus[pin.vcpu].affinity
        partner = next((p for p in waiting[pin.cpus, there] if p.vcpu not in done), None)
        unit = (pin,) if partner is None else (pin, partner)
        done.update(p.vcpu for p in unit)
        yield unit


def _too_soon(
    unit: Unit,
    vcpus: Mapping[VcpuKey, VcpuEstimate],
    moved_s: Mapping[VcpuKey, float],
    settings: GuardSettings,
    now_s: float,
) -> Reason | None:
    """Return the cool-down that a change would break, if any."""
    recent = [pin for pin in unit if pin.vcpu in moved_s]
    starved = settings.starved_ratio * _served(vcpus.values()) if recent else 0.0
    for pin in recent:
        age_s = now_s - moved_s[pin.vcpu]
        if age_s < settings.cooldown_s and _served([vcpus[pin.vcpu]]) >= starved:
            return Reason("cool-down", "was moved {age_s:.1f} s ago", {"age_s": age_s})
    return None


def _served(vcpus: Collection[VcpuEstimate]) -> float:
    """Return the share of demand that is met."""
    wanted = sum(vcpu.demand_ratio for vcpu in vcpus)
    return sum(vcpu.run_ratio for vcpu in vcpus) / wanted if wanted else 1.0


def _in_order(
    granted: list[Unit], vcpus: Mapping[VcpuKey, VcpuEstimate], estimate: CpuEstimate
) -> Iterator[Pin]:
    demand = {vcpu.key: vcpu.demand_ratio for vcpu in estimate.vcpus}
    total = loads(estimate, demand)
    relative = {cpu: total[cpu] / estimate.capacity[cpu] for cpu in total}

    def heat(unit: Unit) -> float:
        return min((relative.get(cpu, 0.0) for cpu in unit[0].cpus), default=0.0)

    for (pin,) in sorted((u for u in granted if len(u) == 1), key=heat):
        yield pin
    for first, second in (u for u in granted if len(u) == 2):
        yield Pin(first.vcpu, first.cpus | vcpus[first.vcpu].affinity, first.reason)
        yield second
        yield first


def _refusal(item: object, vcpus: Mapping[VcpuKey, VcpuEstimate], objection: Reason) -> Amendment:
    if not _well_formed(item):
        return Amendment("", f"a {type(item).__name__}", None, objection)
    assert isinstance(item, Pin)
    vcpu = vcpus.get(item.vcpu)
    name = item.vcpu.uuid if vcpu is None else vcpu.guest_name
    asked = f"{name}/{item.vcpu.vcpu} on {_list(item.cpus) or 'no CPU'}"
    return Amendment(item.vcpu.uuid, asked, None, objection)


def _list(cpus: frozenset[int]) -> str:
    return ",".join(map(str, sorted(cpus)))
