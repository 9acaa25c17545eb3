"""The vCPU scheduler's steps: affinities are what it owns."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from virtbalance.control.journal import Entries, Entry, PinnedVcpu, same_run
from virtbalance.control.ownership import ForeignChange, Ownership, yield_to
from virtbalance.control.policy_role import MAY_HAVE_HAPPENED, PolicyRole
from virtbalance.control.role import GuestFilter, set_anew
from virtbalance.control.settings import CpuSettings
from virtbalance.cpu import demand
from virtbalance.cpu import guard as safety
from virtbalance.cpu.policy import CpuPolicy
from virtbalance.cpu.settings import DemandSettings, GuardSettings
from virtbalance.model.cpu_estimate import CpuEstimate
from virtbalance.model.cpu_list import format_cpu_list
from virtbalance.model.guest import GuestState, RoleName, VcpuKey
from virtbalance.model.plan import Action, CpuPlan, Figure, MemoryPlan, Pin, Reason, Verdict
from virtbalance.model.snapshot import GuestSample, Scope, Snapshot
from virtbalance.model.tick import Event, Outcome, Status
from virtbalance.model.topology import Topology

Mask = frozenset[int]


@dataclass(frozen=True, slots=True)
class CpuRoleSettings:
    """What the role's pure parts are told."""

    demand: DemandSettings
    guard: GuardSettings
    guests: GuestFilter

    @classmethod
    def of(cls, settings: CpuSettings) -> "CpuRoleSettings":
        """Return what of the program's settings concerns the role."""
        guests = GuestFilter(settings.include, settings.exclude)
        return cls(settings.demand, settings.guard, guests)


class CpuRole(PolicyRole[CpuEstimate, VcpuKey, Mask]):
    """Fills ``control.role.Role`` for vCPUs."""

    name = RoleName.CPU
    scope = Scope.CPU

    def __init__(self, policy: CpuPolicy, policy_config: Any, settings: CpuRoleSettings) -> None:
        super().__init__(policy, policy_config)
        self._settings = settings
        self._demand_state: demand.DemandState | None = None
        self._guard_state: safety.GuardState | None = None

    def look(self, snapshot: Snapshot) -> tuple[Event, ...]:
        """Take one sample in: notice foreign pins, estimate anew."""
        now_s = snapshot.taken_ns / 1e9
        self._forget_gone(snapshot, guest_of=attrgetter("uuid"))
        changes = self._without_replugged(tuple(_foreign_pins(self._ownership, snapshot)))
        self._ownership = self._ownership.forgive(set_anew(self._snapshot, snapshot))
        ownership, events = yield_to(self._ownership.expire(now_s), changes, now_s)
        self._ownership = ownership
        for change in changes:
            self._accept(change)
        snapshot = self._settings.guests.apply(snapshot, self.name)
        self._snapshot = snapshot
        self._estimate, self._demand_state = demand.estimate(
            self._demand_state, snapshot, ownership.holds, self._settings.demand
        )
        return events

    def decide(self, now_s: float) -> CpuPlan:
        """Ask the policy."""
        return self._seat.ask(self.estimate, now_s, CpuPlan)

    def hold_plan(self) -> CpuPlan:
        """Return the plan that changes nothing."""
        return CpuPlan()

    def guard(self, plan: CpuPlan | MemoryPlan, now_s: float) -> Verdict:
        """Clamp, refuse and order."""
        assert isinstance(plan, CpuPlan)
        verdict, self._guard_state = safety.guard(
            self._guard_state, self.estimate, plan, self.holds, self._settings.guard, now_s
        )
        return verdict

    def undo(self, actions: Sequence[Action]) -> Entries:
        """Return the original affinity of every vCPU about to be pinned, and what it will be."""
        assert self._snapshot is not None
        masks: dict[str, dict[int, list[Mask]]] = {}
        for action in actions:
            if isinstance(action, Pin):
                of_guest = masks.setdefault(action.vcpu.uuid, {})
                of_guest.setdefault(action.vcpu.vcpu, []).append(action.cpus)
        changed = {
            guest.uuid: self._undo_entry(guest, masks[guest.uuid])
            for guest in self._snapshot.guests
            if guest.uuid in masks
        }
        self._undo.update(changed)
        return changed

    def _undo_entry(self, guest: GuestSample, masks: Mapping[int, Sequence[Mask]]) -> Entry:
        known = self._undo.get(guest.uuid)
        vcpus = dict(known.vcpus) if known else {}
        now = {vcpu.index: vcpu.affinity for vcpu in guest.vcpus}
        for index, wanted in masks.items():
            affinity = now[index]
            assert affinity is not None, "the guard refuses pins of a vCPU whose mask is unknown"
            original = vcpus[index].original if index in vcpus else affinity
            # The mask of this moment counts as ours too: until the call is made it is there.
            ours = tuple(dict.fromkeys((affinity, *wanted)))
            vcpus[index] = PinnedVcpu(original, ours)
        return Entry(guest.name, guest.incarnation, vcpus)

    def record(self, outcomes: Sequence[Outcome]) -> None:
        """Remember which masks were set."""
        for outcome in outcomes:
            if isinstance(outcome.action, Pin) and outcome.status in MAY_HAVE_HAPPENED:
                self._ownership = self._ownership.set_by_us(
                    outcome.action.vcpu,
                    outcome.action.cpus,
                    certain=outcome.status is not Status.LATE,
                )

    def adopt(self, entries: Entries, snapshot: Snapshot) -> None:
        """Take over the pins of an earlier run."""
        for guest, entry in same_run(entries, snapshot):
            self._undo[guest.uuid] = entry
            for index, vcpu in entry.vcpus.items():
                for mask in vcpu.ours:
                    key = VcpuKey(guest.uuid, index)
                    self._ownership = self._ownership.set_by_us(key, mask, certain=False)

    def putting_back(
        self, entries: Entries, snapshot: Snapshot, *, keep: bool
    ) -> tuple[Action, ...]:
        """Return pins to the original masks, except where somebody else has pinned since."""
        if keep:
            return ()
        actions = []
        for guest, entry in same_run(entries, snapshot):
            for vcpu in guest.vcpus:
                known = entry.vcpus.get(vcpu.index)
                if known is None or vcpu.affinity is None or vcpu.affinity == known.original:
                    continue
                if any(_same(vcpu.affinity, mask, snapshot.topology) for mask in known.ours):
                    key = VcpuKey(guest.uuid, vcpu.index)
                    figures: dict[str, Figure] = {
                        "vcpu": vcpu.index,
                        "cpus": format_cpu_list(known.original),
                    }
                    reason = Reason("restore", "vCPU {vcpu} may run on {cpus} again", figures)
                    actions.append(Pin(key, known.original, reason))
        return tuple(actions)

    def _without_replugged(
        self, changes: tuple[ForeignChange[VcpuKey, Mask], ...]
    ) -> tuple[ForeignChange[VcpuKey, Mask], ...]:
        """Forget vCPUs that were plugged in anew, each is another thread now; return the others.

        One that libvirt has given our mask again is as good as the old one.
        """
        if not changes or self._snapshot is None:
            return changes
        former = {
            VcpuKey(guest.uuid, vcpu.index)
            for guest in self._snapshot.guests
            if guest.uuid in self._undo
            for vcpu in guest.vcpus
        }
        for change in changes:
            if change.subject not in former:
                self._ownership = self._ownership.without([change.subject], ())
                entry = self._undo[change.uuid]
                vcpus = {i: v for i, v in entry.vcpus.items() if i != change.subject.vcpu}
                self._undo[change.uuid] = Entry(entry.name, entry.incarnation, vcpus)
        return tuple(change for change in changes if change.subject in former)

    def _accept(self, change: ForeignChange[VcpuKey, Mask]) -> None:
        """Take somebody else's mask as the new original."""
        entry = self._undo[change.uuid]
        vcpus = {**entry.vcpus, change.subject.vcpu: PinnedVcpu(change.seen)}
        self._undo[change.uuid] = Entry(entry.name, entry.incarnation, vcpus)


def _foreign_pins(
    ownership: Ownership[VcpuKey, Mask], snapshot: Snapshot
) -> Iterator[ForeignChange[VcpuKey, Mask]]:
    for guest in snapshot.guests:
        if guest.state is GuestState.STOPPED:
            continue
        for vcpu in guest.vcpus:
            key = VcpuKey(guest.uuid, vcpu.index)
            ours = ownership.ours.get(key)
            if ours is None or vcpu.affinity is None or vcpu.affinity in ours:
                continue
            if not any(_same(vcpu.affinity, mask, snapshot.topology) for mask in ours):
                seen, set_by_us = format_cpu_list(vcpu.affinity), format_cpu_list(ours[-1])
                text = f"vCPU {vcpu.index} may run on {seen}, we had set {set_by_us}"
                yield ForeignChange(guest.uuid, guest.name, key, vcpu.affinity, text)


def _same(seen: Mask, mask: Mask, topology: Topology) -> bool:
    """Compare masks on the CPUs that are online: the kernel reports no others."""
    online = {pcpu.id for pcpu in topology.pcpus if pcpu.online}
    left = mask & online
    # With none of its CPUs online the kernel lets a thread run anywhere; nobody re-pinned it.
    return not left or seen & online == left
