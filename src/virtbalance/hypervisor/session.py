"""Everything that lives and dies with one connection: who is there, what they do, changing it.

A sample puts its questions to libvirt in threads first, looks at the kernel meanwhile, and then
waits for the answers until its deadline.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from virtbalance.hypervisor import host
from virtbalance.hypervisor.apply import Applier, thread_affinity
from virtbalance.hypervisor.calls import Callers
from virtbalance.hypervisor.capabilities import topology_from_capabilities
from virtbalance.hypervisor.compartments import Compartments
from virtbalance.hypervisor.connection import Connection, local_host
from virtbalance.hypervisor.cpu_sampling import AskedVcpus, LocalVcpus
from virtbalance.hypervisor.facts import read_facts
from virtbalance.hypervisor.gather import Answers, Round
from virtbalance.hypervisor.guest_reading import Guest
from virtbalance.hypervisor.guests import Guests, names_of
from virtbalance.hypervisor.memory_sampling import has_job, late_sample, memory_sample
from virtbalance.hypervisor.node_memory import NodeMemory
from virtbalance.hypervisor.processes import GuestProcess
from virtbalance.hypervisor.remote_host import RemoteHost, ask_host
from virtbalance.hypervisor.topology import read_topology, topology_mark
from virtbalance.model.guest import VcpuKey
from virtbalance.model.plan import Action, SetStatsPeriod
from virtbalance.model.snapshot import (
    GuestSample,
    HostFact,
    MemorySample,
    Scope,
    Snapshot,
    VcpuSample,
)
from virtbalance.model.tick import Event, Outcome
from virtbalance.model.topology import Topology

_SENSING_THREADS = 4
_TOPOLOGY_INTERVAL_S = 1.0
_FACTS_INTERVAL_S = 60.0
_HOST = "host"


class _Wants(NamedTuple):
    """A scope, or what of it has to be asked for; cheaper to look at than a flag."""

    cpu: bool
    memory: bool


class _Answer(NamedTuple):
    """What one guest told in one round; ``None``: not asked, or not told."""

    vcpus: tuple[VcpuSample, ...] | None = None
    memory: MemorySample | None = None
    has_job: bool = False


_NO_ANSWER = _Answer()


class Session:
    """One connection in use. HypervisorLostError from any method when it is gone."""

    def __init__(
        self, connection: Connection, root: Path, tell: Callable[[Event], None], timeout_s: float
    ) -> None:
        self.connection = connection
        self._root = root
        self._tell = tell
        self._guests = Guests(connection.events, local_host(connection, root), tell)
        self._local_vcpus = LocalVcpus(root / "proc", self._guests.mark)
        self._asked_vcpus = AskedVcpus()
        self._node_memory = NodeMemory(root)
        self._compartments = Compartments(root)
        self._callers = Callers("sense", _SENSING_THREADS)
        self._last: dict[str, tuple[str, _Answer]] = {}
        self._told_failures: dict[str, str] = {}
        self._applier = Applier(
            connection.acting, self._guests.known, self._read_affinity, self._callers.is_stuck
        )
        self._cpu_map = connection.cpu_map
        self._topology_mark: object = None
        self._topology = Topology(())
        self._next_topology_s = 0.0
        self._facts: tuple[HostFact, ...] = ()
        self._next_facts_s = math.inf
        self._facts_callers = Callers("facts", 1)
        if connection.is_local:
            self._read_facts()
        self._guests.current(timeout_s)

    def topology(self) -> Topology:
        """Return the topology, formed anew only when CPUs came or went."""
        capabilities = self.connection.capabilities
        if capabilities is not None:
            if self._topology_mark != self._cpu_map:
                self._topology_mark = self._cpu_map
                self._topology = topology_from_capabilities(capabilities, self._cpu_map)
        elif time.monotonic() >= self._next_topology_s:
            self._next_topology_s = time.monotonic() + _TOPOLOGY_INTERVAL_S
            mark = topology_mark(self._root)
            if self._topology_mark != mark:
                self._topology_mark = mark
                self._topology = read_topology(self._root, len(self._cpu_map))
        return self._topology

    def sample(self, scope: Scope, end_s: float) -> Snapshot:
        """Look once, until the monotonic time ``end_s`` at the latest."""
        wants = _Wants(Scope.CPU in scope, Scope.MEMORY in scope)
        guests = self._guests.current(end_s - time.monotonic())
        taken_ns = time.monotonic_ns()
        host_round = None if self.connection.is_local else self._begin_host(scope)
        guest_round = self._begin_guests(guests, wants)
        threads = self._local_vcpus.sample(guests.values()) if wants.cpu else {}
        topology = self.topology()
        has_nodes = wants.cpu and len(topology.nodes) > 1
        node_memory = self._node_memory.current(guests) if has_nodes else {}
        told = self._local_host(scope) if host_round is None else _take(host_round, end_s)
        has_compartments = wants.memory and host_round is None
        compartments = self._compartments.read(guests.values()) if has_compartments else ()
        answers = guest_round.finish(end_s)
        self._note(guests, answers)
        samples = [
            self._guest_sample(guest, threads.get(guest.uuid), wants, answers, node_memory)
            for guest in guests.values()
        ]
        return Snapshot(
            taken_ns=taken_ns,
            wall_s=time.time(),
            topology=topology,
            guests=tuple(sample for sample in samples if sample is not None),
            pcpus=told.pcpus,
            memory=told.memory,
            compartments=compartments,
            facts=self._current_facts(),
        )

    def apply(self, actions: Sequence[Action], deadline_s: float) -> tuple[Outcome, ...]:
        """Carry actions out; see ``Applier``."""
        outcomes = self._applier.apply(actions, self.topology(), deadline_s)
        for outcome in outcomes:
            if isinstance(outcome.action, SetStatsPeriod):
                self._guests.mark(outcome.action.uuid)  # it is part of the definition
        return outcomes

    def names(self) -> dict[str, str]:
        """Return the name of each guest by UUID, as last listed."""
        return names_of(self._guests.latest())

    def close(self) -> None:
        """Let go of threads, descriptors, subscriptions and links."""
        self._local_vcpus.close()
        for closer in (
            self._callers,
            self._facts_callers,
            self._node_memory,
            self._applier,
            self._guests,
            self.connection,
        ):
            closer.close()

    # Questions to guests and their answers

    def _begin_guests(self, guests: Mapping[str, Guest], wants: _Wants) -> Round[_Answer]:
        """Ask libvirt for what can't be seen from here."""
        of_local = wants._replace(cpu=False)
        questions: dict[str, Callable[[], _Answer]] = {}
        for uuid, guest in guests.items():
            asks = wants if guest.threads is None else of_local
            if asks.cpu or asks.memory:
                questions[uuid] = partial(self._ask, guest, asks)
        return Round(self._callers, questions)

    def _ask(self, guest: Guest, asks: _Wants) -> _Answer:
        with self.connection.sensing.use() as link:
            vcpus = self._asked_vcpus.ask(link, guest) if asks.cpu else None
            if not asks.memory:
                return _Answer(vcpus)
            memory = memory_sample(guest, link.memory_statistics(guest.uuid))
            return _Answer(vcpus, memory, has_job(link, guest.uuid))

    def _note(self, guests: Mapping[str, Guest], answers: Answers[_Answer]) -> None:
        """Remember the answers for guests that will be late, and let go of guests that ended."""
        for uuid, fresh in answers.fresh.items():
            guest = guests[uuid]
            vcpus, memory, _ = self._last_answer(guest)
            known = _Answer(fresh.vcpus or vcpus, fresh.memory or memory, fresh.has_job)
            self._last[uuid] = (guest.incarnation, known)
        for uuid in answers.gone:
            self._guests.mark(uuid)
        for uuid, text in answers.failed.items():
            if self._told_failures.get(uuid) != text:
                self._told_failures[uuid] = text
                self._tell(Event("no-statistics", f"{guests[uuid].name}: {text}", uuid))
        self._local_vcpus.keep_only(guests)
        self._asked_vcpus.keep_only(guests)
        for uuid in (self._last.keys() | self._told_failures.keys()) - guests.keys():
            self._last.pop(uuid, None)
            self._told_failures.pop(uuid, None)

    def _last_answer(self, guest: Guest) -> _Answer:
        incarnation, answer = self._last.get(guest.uuid, ("", _NO_ANSWER))
        return answer if incarnation == guest.incarnation else _NO_ANSWER

    def _guest_sample(
        self,
        guest: Guest,
        threads: tuple[VcpuSample, ...] | None,
        wants: _Wants,
        answers: Answers[_Answer],
        node_memory: Mapping[GuestProcess, Mapping[int, int]],
    ) -> GuestSample | None:
        """Put together what is known of one guest; ``None`` if it ended under our eyes."""
        is_local = guest.threads is not None
        if guest.uuid in answers.gone or (wants.cpu and is_local and threads is None):
            return None
        vcpus = threads or ()
        memory = None
        is_busy = False
        if wants.memory or not is_local:
            answer = self._last_answer(guest)
            if wants.cpu and not is_local:
                vcpus = answer.vcpus or ()
            if wants.memory:
                is_fresh = guest.uuid in answers.fresh and answer.memory is not None
                memory = answer.memory if is_fresh else late_sample(guest, answer.memory)
                is_busy = answer.has_job
        return GuestSample(
            uuid=guest.uuid,
            name=guest.name,
            incarnation=guest.incarnation,
            state=guest.state,
            settings=guest.settings,
            definition=guest.definition,
            vcpus=vcpus,
            memory=memory,
            has_job=is_busy,
            memory_by_node=node_memory.get(guest.process) if guest.process else None,
        )

    # The host

    def _begin_host(self, scope: Scope) -> Round[RemoteHost]:
        return Round(self._callers, {_HOST: partial(self._ask_host, scope)})

    def _ask_host(self, scope: Scope) -> RemoteHost:
        with self.connection.sensing.use() as link:
            told = ask_host(link, scope)
        self._cpu_map = told.cpu_map or self._cpu_map
        return told

    def _local_host(self, scope: Scope) -> RemoteHost:
        return RemoteHost(
            pcpus=host.read_pcpus(self._root) if Scope.CPU in scope else (),
            memory=host.read_memory(self._root) if Scope.MEMORY in scope else None,
        )

    def _current_facts(self) -> tuple[HostFact, ...]:
        """Return the facts as last read; reading them anew takes too long for a sample."""
        if time.monotonic() >= self._next_facts_s:
            self._next_facts_s = math.inf
            self._facts_callers.submit("facts", self._read_facts)
        return self._facts

    def _read_facts(self) -> None:
        self._facts = read_facts(self._root)
        self._next_facts_s = time.monotonic() + _FACTS_INTERVAL_S

    def _read_affinity(self, key: VcpuKey) -> frozenset[int]:
        """Read back where a vCPU may run: from the kernel where it is local."""
        thread_id = self._local_vcpus.thread_id(key)
        if thread_id is not None:
            affinity = thread_affinity(thread_id)
        else:
            with self.connection.acting.use() as link:
                affinities = {info.vcpu: info.affinity for info in link.vcpus(key.uuid)}
            affinity = affinities.get(key.vcpu, frozenset())
        self._asked_vcpus.note_affinity(key, affinity)
        return affinity


def _take(host_round: Round[RemoteHost], end_s: float) -> RemoteHost:
    """Wait for what a remote host tells; nothing if it is late."""
    return host_round.finish(end_s).fresh.get(_HOST, RemoteHost())
