"""The libvirt filling of the Hypervisor protocol: puts the parts of this room together.

One of these is used by one thread. On this very machine the vCPU counters come from the kernel
and the rest from libvirt; of a remote host everything comes from libvirt.
"""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import libvirt

from virtbalance.hypervisor import host, remote_host
from virtbalance.hypervisor.apply import Applier, thread_affinity
from virtbalance.hypervisor.calls import Callers
from virtbalance.hypervisor.capabilities import topology_from_capabilities
from virtbalance.hypervisor.connection import (
    OPEN_TIMEOUT_S,
    Connection,
    host_id,
    local_host,
    open_connection,
)
from virtbalance.hypervisor.cpu_sampling import AskedVcpus, LocalVcpus
from virtbalance.hypervisor.errors import exception_of
from virtbalance.hypervisor.facts import read_facts
from virtbalance.hypervisor.gather import Answers, Round
from virtbalance.hypervisor.guests import Guest, Guests
from virtbalance.hypervisor.memory_sampling import late_sample, memory_sample
from virtbalance.hypervisor.topology import read_topology, topology_mark
from virtbalance.model.errors import HypervisorLostError
from virtbalance.model.guest import VcpuKey
from virtbalance.model.plan import Action
from virtbalance.model.snapshot import (
    GuestSample,
    HostFact,
    HostMemory,
    MemorySample,
    PcpuSample,
    Scope,
    Snapshot,
    VcpuSample,
)
from virtbalance.model.tick import Event, Outcome, Status
from virtbalance.model.topology import Topology

T = TypeVar("T")
_SENSING_THREADS = 5
_FACTS_INTERVAL_S = 60.0


def connect(
    uri: str | None = None,
    *,
    read_only: bool = False,
    root: Path = Path("/"),
    timeout_s: float = OPEN_TIMEOUT_S,
) -> "LibvirtHypervisor":
    """Connect to a libvirt URI (``None``: libvirt's own default) and learn who is there.

    ``root`` is prefixed to every path of the host. HypervisorLostError if nobody answers within
    ``timeout_s``, HypervisorDeniedError if we may not, HypervisorError if the URI makes no sense.
    """
    return LibvirtHypervisor(uri, read_only=read_only, root=root, timeout_s=timeout_s)


class LibvirtHypervisor:
    """A live host."""

    def __init__(self, uri: str | None, *, read_only: bool, root: Path, timeout_s: float) -> None:
        self._uri = uri
        self._read_only = read_only
        self._root = root
        self._timeout_s = timeout_s
        self._events: deque[Event] = deque()
        self._parts: _Parts | None = _Parts(self._open(), root, self._events.append, timeout_s)

    @property
    def host_id(self) -> str:
        """A name for this host and driver, stable across restarts and safe as a file name."""
        return host_id(self._alive_parts().connection, self._root)

    @property
    def boot_id(self) -> str:
        """The kernel's name for this boot; empty for a remote host, where nobody tells."""
        return host.read_boot_id(self._root) if self._alive_parts().is_local else ""

    @property
    def read_only(self) -> bool:
        """Whether the connection permits no changes."""
        return self._read_only

    @property
    def uri(self) -> str:
        """The URI in use."""
        return self._alive_parts().connection.uri

    def topology(self) -> Topology:
        """Return the host's CPUs as they are now."""
        return self._alive_parts().topology()

    def sample(self, scope: Scope, deadline_s: float) -> Snapshot:
        """Look at the host once. A guest that does not answer in time is marked, not awaited."""
        return self._alive_parts().sample(scope, time.monotonic() + deadline_s)

    def apply(self, actions: Sequence[Action], deadline_s: float) -> tuple[Outcome, ...]:
        """Carry actions out in order, one call each, all within the deadline; one outcome each."""
        refusal = self._why_not_to_act()
        if refusal:
            return tuple(Outcome(action, Status.REFUSED, refusal) for action in actions)
        assert self._parts is not None
        return self._parts.apply(actions, deadline_s)

    def events(self) -> tuple[Event, ...]:
        """Return what happened since the last call (guests that came or went, and the like)."""
        return tuple(self._events.popleft() for _ in range(len(self._events)))

    def reconnect(self) -> None:
        """Make the connection anew after ``HypervisorLostError``; raises it again if that fails."""
        self.close()
        self._parts = _Parts(self._open(), self._root, self._events.append, self._timeout_s)

    def close(self) -> None:
        """Let go of everything held; safe to call twice."""
        parts, self._parts = self._parts, None
        if parts is not None:
            parts.close()

    def _open(self) -> Connection:
        return open_connection(self._uri, read_only=self._read_only, timeout_s=self._timeout_s)

    def _alive_parts(self) -> "_Parts":
        if self._parts is None:
            raise HypervisorLostError("not connected")
        if not self._parts.connection.is_alive:
            raise HypervisorLostError(f"lost the connection to {self._parts.connection.uri}")
        return self._parts

    def _why_not_to_act(self) -> str | None:
        if self._read_only:
            return "the connection is read-only"
        if self._parts is None or not self._parts.connection.is_alive:
            return "the connection is lost"
        return None


class _Parts:
    """Everything that lives and dies with one connection."""

    def __init__(
        self, connection: Connection, root: Path, tell: Callable[[Event], None], timeout_s: float
    ) -> None:
        self.connection = connection
        self._root = root
        local = local_host(connection, root)
        self._guests = Guests(connection.sensing, connection.events, local, tell)
        self._local_vcpus = LocalVcpus(root / "proc", self._guests.mark)
        self._asked_vcpus = AskedVcpus(connection.sensing)
        self._callers = Callers("sense", _SENSING_THREADS)
        self._last: dict[str, tuple[str, _Answer]] = {}
        self._applier = Applier(
            connection.acting, self._guests.known, self._read_affinity, self._callers.is_stuck
        )
        self._topology_mark: tuple[str, ...] | None = None
        self._topology = self._read_topology()
        self._facts: tuple[HostFact, ...] = ()
        self._next_facts_s = 0.0
        self._guests.current(timeout_s)

    @property
    def is_local(self) -> bool:
        """Whether the host's own files may be believed."""
        return self.connection.is_local

    def topology(self) -> Topology:
        """Return the topology, read anew only when CPUs came or went."""
        if self.is_local and topology_mark(self._root) != self._topology_mark:
            self._topology = self._read_topology()
        return self._topology

    def sample(self, scope: Scope, end_s: float) -> Snapshot:
        """Look once, until the monotonic time ``end_s`` at the latest."""
        guests = self._guests.current(end_s - time.monotonic())
        topology = self.topology()
        around = Round(self._callers, self._questions(guests, scope))
        vcpus: dict[str, tuple[VcpuSample, ...]] = {}
        pcpus: tuple[PcpuSample, ...] = ()
        memory: HostMemory | None = None
        taken_ns = time.monotonic_ns()
        if Scope.CPU in scope:
            vcpus = self._local_vcpus.sample(guests.values())
            pcpus = self._read_pcpus(topology)
        if Scope.MEMORY in scope:
            memory = self._read_memory()
        answers = around.finish(end_s)
        self._keep_only(guests)
        samples = (
            self._guest_sample(guest, scope, vcpus.get(guest.uuid), answers)
            for guest in sorted(guests.values(), key=lambda guest: guest.uuid)
        )
        return Snapshot(
            taken_ns=taken_ns,
            wall_s=time.time(),
            topology=topology,
            guests=tuple(sample for sample in samples if sample is not None),
            pcpus=pcpus,
            memory=memory,
            facts=self._current_facts(),
        )

    def apply(self, actions: Sequence[Action], deadline_s: float) -> tuple[Outcome, ...]:
        """Carry actions out; see ``Applier``."""
        return self._applier.apply(actions, self._topology, deadline_s)

    def close(self) -> None:
        """Let go of threads, descriptors, subscriptions and links."""
        self._local_vcpus.close()
        self._callers.close()
        self._applier.close()
        with suppress(libvirt.libvirtError):  # a broken connection has no subscriptions any more
            self._guests.close()
        self.connection.close()

    # Questions and answers

    def _questions(
        self, guests: Mapping[str, Guest], scope: Scope
    ) -> dict[str, Callable[[], "_Answer"]]:
        questions: dict[str, Callable[[], _Answer]] = {}
        for guest in guests.values():
            ask_vcpus = Scope.CPU in scope and guest.threads is None
            ask_memory = Scope.MEMORY in scope
            if ask_vcpus or ask_memory:
                questions[guest.uuid] = partial(self._ask, guest, ask_vcpus, ask_memory)
        return questions

    def _ask(self, guest: Guest, ask_vcpus: bool, ask_memory: bool) -> "_Answer":  # noqa: FBT001
        vcpus = self._asked_vcpus.ask(guest) if ask_vcpus else None
        memory = None
        if ask_memory:
            memory = memory_sample(guest, self.connection.sensing.memory_statistics(guest.uuid))
        return _Answer(vcpus, memory)

    def _guest_sample(
        self,
        guest: Guest,
        scope: Scope,
        vcpus: tuple[VcpuSample, ...] | None,
        answers: "Answers[_Answer]",
    ) -> GuestSample | None:
        uuid = guest.uuid
        threads_ended = Scope.CPU in scope and guest.threads is not None and vcpus is None
        if uuid in answers.gone or threads_ended:
            self._guests.mark(uuid)
            return None
        answer = self._answer(guest, answers)
        memory = answer.memory
        if Scope.MEMORY in scope and (uuid not in answers.fresh or memory is None):
            memory = late_sample(guest, memory)
        return GuestSample(
            uuid=uuid,
            name=guest.name,
            incarnation=guest.incarnation,
            state=guest.state,
            settings=guest.settings,
            definition=guest.definition,
            vcpus=(vcpus or answer.vcpus or ()) if Scope.CPU in scope else (),
            memory=memory if Scope.MEMORY in scope else None,
        )

    def _answer(self, guest: Guest, answers: "Answers[_Answer]") -> "_Answer":
        """Return the fresh answer, with what it leaves out taken from the last one."""
        incarnation, last = self._last.get(guest.uuid, ("", _Answer()))
        if incarnation != guest.incarnation:
            last = _Answer()
        fresh = answers.fresh.get(guest.uuid, _Answer())
        answer = _Answer(fresh.vcpus or last.vcpus, fresh.memory or last.memory)
        self._last[guest.uuid] = (guest.incarnation, answer)
        return answer

    def _keep_only(self, guests: Mapping[str, Guest]) -> None:
        self._local_vcpus.keep_only(guests)
        self._asked_vcpus.keep_only(guests)
        for uuid in self._last.keys() - guests.keys():
            del self._last[uuid]

    # The host

    def _read_topology(self) -> Topology:
        try:
            cpu_map = self.connection.sensing.cpu_map()
            if not self.is_local:
                # Not asked of a local host: it makes libvirt try out every QEMU there is.
                capabilities = self.connection.sensing.capabilities()
                return topology_from_capabilities(capabilities, cpu_map)
        except libvirt.libvirtError as error:
            raise exception_of(error, "asking for the host's CPUs") from error
        self._topology_mark = topology_mark(self._root)
        return read_topology(self._root, len(cpu_map))

    def _read_pcpus(self, topology: Topology) -> tuple[PcpuSample, ...]:
        if self.is_local:
            return host.read_pcpus(self._root)
        return self._asking(lambda: remote_host.ask_pcpus(self.connection.sensing, topology.pcpus))

    def _read_memory(self) -> HostMemory | None:
        if self.is_local:
            return host.read_memory(self._root)
        return self._asking(lambda: remote_host.ask_memory(self.connection.sensing))

    def _asking(self, question: Callable[[], T]) -> T:
        try:
            return question()
        except libvirt.libvirtError as error:
            raise exception_of(error, "asking for the host's counters") from error

    def _current_facts(self) -> tuple[HostFact, ...]:
        if self.is_local and time.monotonic() >= self._next_facts_s:
            self._facts = read_facts(self._root)
            self._next_facts_s = time.monotonic() + _FACTS_INTERVAL_S
        return self._facts

    def _read_affinity(self, key: VcpuKey) -> frozenset[int]:
        """Read back where a vCPU may run: from the kernel where it is local."""
        thread_id = self._local_vcpus.thread_id(key)
        if thread_id is not None:
            return thread_affinity(thread_id)
        masks = {info.vcpu: info.affinity for info in self.connection.acting.vcpus(key.uuid)}
        affinity = masks.get(key.vcpu, frozenset[int]())
        self._asked_vcpus.note_affinity(key, affinity)
        return affinity


class _Answer:
    """What one guest told in one round; ``None``: not asked, or not told."""

    __slots__ = ("memory", "vcpus")

    def __init__(
        self,
        vcpus: tuple[VcpuSample, ...] | None = None,
        memory: MemorySample | None = None,
    ) -> None:
        self.vcpus = vcpus
        self.memory = memory
