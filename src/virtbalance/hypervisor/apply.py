"""Carry actions out: one libvirt call each, in order, within a deadline, and read pins back.

Nothing here raises for what a guest or libvirt does: every action ends in one outcome. Each call
is made by a daemon thread with at most one under way a guest. A call that hangs is waited for only
as long as leaves the same time to each of the others (but at least ``_PATIENCE_S``, so that a slow
moment does not change the order); whether it answered after all is looked at again at the end.
"""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Protocol

import libvirt

from virtbalance.hypervisor.calls import Call, Callers
from virtbalance.hypervisor.errors import Fault, fault_of, text_of
from virtbalance.hypervisor.guest_reading import Guest
from virtbalance.model.cpu_list import format_cpu_list
from virtbalance.model.guest import VcpuKey
from virtbalance.model.plan import Action, Pin, Resize, SetStatsPeriod, guest_of
from virtbalance.model.tick import Outcome, Status
from virtbalance.model.topology import Topology

_THREADS = 4
_PATIENCE_S = 0.02
_OUT_OF_TIME = "out of time; nothing was sent"
_STATUS_OF_FAULT = {Fault.GONE: Status.GONE, Fault.OCCUPIED: Status.BUSY}

Ending = tuple[Status, str]
_DONE: Ending = (Status.DONE, "")


class Levers(Protocol):
    """The calls that change something (``Link`` has them)."""

    def pin(self, uuid: str, vcpu: int, mask: Sequence[bool]) -> None:
        """Set the live affinity of one vCPU."""

    def resize(self, uuid: str, target_kib: int) -> None:
        """Set the live balloon target."""

    def set_stats_period(self, uuid: str, period_s: int) -> None:
        """Set the live period of the balloon's statistics."""


class LeverPool(Protocol):
    """Lends levers for one call (``LinkPool`` does)."""

    def use(self) -> AbstractContextManager[Levers]:
        """Lend them."""


class Applier:
    """Applies actions to guests that ``find_guest`` knows."""

    def __init__(
        self,
        acting: LeverPool,
        find_guest: Callable[[str], Guest | None],
        read_affinity: Callable[[VcpuKey], frozenset[int]],
        is_hung: Callable[[str], bool],
    ) -> None:
        """``read_affinity`` may raise libvirtError or OSError; ``is_hung`` is what sensing says."""
        self._acting = acting
        self._find_guest = find_guest
        self._read_affinity = read_affinity
        self._is_hung = is_hung
        self._callers = Callers("apply", _THREADS)

    def apply(
        self, actions: Sequence[Action], topology: Topology, deadline_s: float
    ) -> tuple[Outcome, ...]:
        """Carry the actions out and say how each ended."""
        end_s = time.monotonic() + deadline_s
        begun = []
        for number, action in enumerate(actions):
            share = 1 / (len(actions) - number + 1)
            begun.append(self._begin(action, topology, end_s, share))
        return tuple(self._end(one, end_s) if isinstance(one, _Begun) else one for one in begun)

    def close(self) -> None:
        """Let the threads end."""
        self._callers.close()

    def _begin(
        self, action: Action, topology: Topology, end_s: float, share: float
    ) -> "_Begun | Outcome":
        """Send one action off and wait for its end as long as the others can spare."""
        guest = self._find_guest(guest_of(action))
        if guest is None:
            return Outcome(action, Status.GONE, "no such guest")
        if isinstance(action, Pin) and guest.vcpus and action.vcpu.vcpu not in guest.vcpus:
            return Outcome(action, Status.GONE, f"it has no vCPU {action.vcpu.vcpu}")
        if refusal := _refusal(action, guest, topology):
            return Outcome(action, Status.REFUSED, refusal)
        if self._is_hung(guest.uuid):
            return Outcome(action, Status.BUSY, "it does not answer its monitor; nothing was sent")
        return self._send(action, guest, topology, end_s, share)

    def _send(
        self, action: Action, guest: Guest, topology: Topology, end_s: float, share: float
    ) -> "_Begun | Outcome":
        left_s = end_s - time.monotonic()
        if left_s <= 0:
            return Outcome(action, Status.BUSY, _OUT_OF_TIME)
        call = self._callers.submit(guest.uuid, partial(self._carry_out, action, topology))
        if call is None:
            return Outcome(action, Status.BUSY, "an earlier call has not answered")
        in_time = call.wait(min(left_s / 2, max(_PATIENCE_S, left_s * share)))
        if not in_time and self._callers.give_up(call):
            return Outcome(action, Status.BUSY, _OUT_OF_TIME)
        return _Begun(action, call)

    def _end(self, begun: "_Begun", end_s: float) -> Outcome:
        call = begun.call
        if call.wait(end_s - time.monotonic()):
            status, text = call.result()
            return Outcome(begun.action, status, text, call.took_ns)
        return Outcome(begun.action, Status.LATE, "no answer in time; it may still happen")

    def _carry_out(self, action: Action, topology: Topology) -> Ending:
        try:
            match action:
                case Pin(vcpu, cpus):
                    mask = [cpu in cpus for cpu in range(topology.map_length)]
                    with self._acting.use() as levers:
                        levers.pin(vcpu.uuid, vcpu.vcpu, mask)
                    return self._compare(vcpu, cpus, topology)
                case Resize(uuid, target_kib):
                    with self._acting.use() as levers:
                        levers.resize(uuid, target_kib)
                case SetStatsPeriod(uuid, period_s):
                    with self._acting.use() as levers:
                        levers.set_stats_period(uuid, period_s)
        except libvirt.libvirtError as error:
            return _STATUS_OF_FAULT.get(fault_of(error), Status.REFUSED), text_of(error)
        return _DONE

    def _compare(self, vcpu: VcpuKey, asked: frozenset[int], topology: Topology) -> Ending:
        """Read the affinity back. CPUs that are offline count on neither side."""
        try:
            found = self._read_affinity(vcpu)
        except ProcessLookupError:
            return Status.GONE, "it ended right after the call"
        if _online(found, topology) == _online(asked, topology):
            return _DONE
        return Status.DIFFERENT, f"reads {format_cpu_list(found)} after the call"


class _Begun:
    """An action whose call was handed to a thread."""

    __slots__ = ("action", "call")

    def __init__(self, action: Action, call: Call[Ending]) -> None:
        self.action = action
        self.call = call


def _refusal(action: Action, guest: Guest, topology: Topology) -> str | None:
    """Say why an action makes no sense here, before libvirt is asked; ``None`` if it does."""
    match action:
        case Pin(_, cpus):
            unknown = cpus - topology.by_id.keys()
            if unknown:
                return f"the host has no CPU {format_cpu_list(unknown)}"
            if not _online(cpus, topology):
                return "the mask holds no CPU that is online"
        case Resize(_, target_kib):
            if not 0 < target_kib <= guest.maximum_kib:
                return f"outside 1 to {guest.maximum_kib} KiB, its maximum"
        case SetStatsPeriod(_, period_s):
            if period_s < 0:
                return "a period can't be negative"
    return None


def _online(cpus: frozenset[int], topology: Topology) -> frozenset[int]:
    by_id = topology.by_id
    return frozenset(cpu for cpu in cpus if cpu in by_id and by_id[cpu].online)


def thread_affinity(thread_id: int) -> frozenset[int]:
    """Return where a thread may run, by the kernel. ProcessLookupError when it has ended."""
    return frozenset(os.sched_getaffinity(thread_id))
