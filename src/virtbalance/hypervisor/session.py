"""Everything that lives and dies with one connection: who is there, what they do, changing it.

A sample puts its questions to libvirt in threads first, looks at the kernel meanwhile, and then
waits for the answers until its deadline.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from virtbalance.hypervisor import host
from virtbalance.hypervisor.apply import Applier, thread_affinity
from virtbalance.hypervisor.calls import Callers
from virtbalance.hypervisor.capabilities import topology_from_capabilities
from virtbalance.hypervisor.connection import Connection, local_host
from virtbalance.hypervisor.cpu_sampling import AskedVcpus, LocalVcpus
from virtbalance.hypervisor.facts import read_facts
from virtbalance.hypervisor.gather import Answers, Round
from virtbalance.hypervisor.guest_reading import Guest
from virtbalance.hypervisor.guests import Guests
from virtbalance.hypervisor.memory_sampling import late_sample, memory_sample
from virtbalance.hypervisor.remote_host import RemoteHost, ask_host
from virtbalance.hypervisor.topology import read_topology, topology_mark
from virtbalance.model.guest import VcpuKey
from virtbalance.model.plan import Action
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
_FACTS_INTERVAL_S = 60.0
_HOST = "host"


@dataclass(frozen=True, slots=True)
class _Answer:
    """What one guest told in one round; ``None``: not asked, or not told."""

    vcpus: tuple[VcpuSample, ...] | None = None
    memory: MemorySample | None = None


class Session:
    """One connection in use. HypervisorLostError from any method when it is gone."""

    def __init__(
        self, connection: Connection, root: Path, tell: Callable[[Event], None], timeout_s: float
    ) -> None:
        self.connection = connection
        self._root = root
        self._guests = Guests(connection.events, local_host(connection, root), tell)
        self._local_vcpus = LocalVcpus(root / "proc", self._guests.mark)
        self._asked_vcpus = AskedVcpus()
        self._callers = Callers("sense", _SENSING_THREADS)
        self._last: dict[str, tuple[str, _Answer]] = {}
        self._last_host = RemoteHost()
        self._applier = Applier(
            connection.acting, self._guests.known, self._read_affinity, self._callers.is_stuck
        )
        self._cpu_map = connection.cpu_map
        self._topology_mark: object = None
        self._topology = Topology(())
        self._facts: tuple[HostFact, ...] = ()
        self._next_facts_s = 0.0
        self._guests.current(timeout_s)

    def topology(self) -> Topology:
        """Return the topology, formed anew only when CPUs came or went."""
        capabilities = self.connection.capabilities
        mark = topology_mark(self._root) if capabilities is None else self._cpu_map
        if mark != self._topology_mark:
            if capabilities is None:
                self._topology = read_topology(self._root, len(self._cpu_map))
            else:
                self._topology = topology_from_capabilities(capabilities, self._cpu_map)
            self._topology_mark = mark
        return self._topology

    def sample(self, scope: Scope, end_s: float) -> Snapshot:
        """Look once, until the monotonic time ``end_s`` at the latest."""
        guests = self._guests.current(end_s - time.monotonic())
        taken_ns = time.monotonic_ns()
        host_round = self._begin_host(scope)
        guest_round = Round(self._callers, self._questions(guests, scope))
        vcpus: dict[str, tuple[VcpuSample, ...]] = {}
        if Scope.CPU in scope:
            vcpus = self._local_vcpus.sample(guests.values())
        told = self._finish_host(host_round, scope, end_s)
        answers = guest_round.finish(end_s)
        self._forget_all_but(guests)
        samples = (
            self._guest_sample(guest, scope, vcpus.get(guest.uuid), answers)
            for guest in sorted(guests.values(), key=lambda guest: guest.uuid)
        )
        return Snapshot(
            taken_ns=taken_ns,
            wall_s=time.time(),
            topology=self.topology(),
            guests=tuple(sample for sample in samples if sample is not None),
            pcpus=told.pcpus,
            memory=told.memory,
            facts=self._current_facts(),
        )

    def apply(self, actions: Sequence[Action], deadline_s: float) -> tuple[Outcome, ...]:
        """Carry actions out; see ``Applier``."""
        return self._applier.apply(actions, self.topology(), deadline_s)

    def close(self) -> None:
        """Let go of threads, descriptors, subscriptions and links."""
        self._local_vcpus.close()
        for closer in (self._callers, self._applier, self._guests, self.connection):
            closer.close()

    # Questions and answers

    def _questions(
        self, guests: Mapping[str, Guest], scope: Scope
    ) -> dict[str, Callable[[], _Answer]]:
        questions: dict[str, Callable[[], _Answer]] = {}
        for guest in guests.values():
            wanted = scope if guest.threads is None else scope & ~Scope.CPU
            if wanted:
                questions[guest.uuid] = partial(self._ask, guest, wanted)
        return questions

    def _ask(self, guest: Guest, wanted: Scope) -> _Answer:
        with self.connection.sensing.use() as link:
            vcpus = self._asked_vcpus.ask(link, guest) if Scope.CPU in wanted else None
            if Scope.MEMORY not in wanted:
                return _Answer(vcpus)
            return _Answer(vcpus, memory_sample(guest, link.memory_statistics(guest.uuid)))

    def _guest_sample(
        self,
        guest: Guest,
        scope: Scope,
        vcpus: tuple[VcpuSample, ...] | None,
        answers: Answers[_Answer],
    ) -> GuestSample | None:
        """Put together what is known of one guest; ``None`` if it ended under our eyes."""
        uuid = guest.uuid
        threads_ended = Scope.CPU in scope and guest.threads is not None and vcpus is None
        if uuid in answers.gone or threads_ended:
            self._guests.mark(uuid)
            return None
        answer = self._remember(guest, answers.fresh.get(uuid, _Answer()))
        memory = answer.memory if Scope.MEMORY in scope else None
        if Scope.MEMORY in scope and (memory is None or uuid not in answers.fresh):
            memory = late_sample(guest, memory)
        return GuestSample(
            uuid=uuid,
            name=guest.name,
            incarnation=guest.incarnation,
            state=guest.state,
            settings=guest.settings,
            definition=guest.definition,
            vcpus=(vcpus or answer.vcpus or ()) if Scope.CPU in scope else (),
            memory=memory,
        )

    def _remember(self, guest: Guest, fresh: _Answer) -> _Answer:
        """Return the fresh answer, with what it leaves out taken from the last one."""
        incarnation, last = self._last.get(guest.uuid, ("", _Answer()))
        if incarnation != guest.incarnation:
            last = _Answer()
        answer = _Answer(fresh.vcpus or last.vcpus, fresh.memory or last.memory)
        self._last[guest.uuid] = (guest.incarnation, answer)
        return answer

    def _forget_all_but(self, guests: Mapping[str, Guest]) -> None:
        self._local_vcpus.keep_only(guests)
        self._asked_vcpus.keep_only(guests)
        for uuid in self._last.keys() - guests.keys():
            del self._last[uuid]

    # The host

    def _begin_host(self, scope: Scope) -> Round[RemoteHost] | None:
        if self.connection.is_local:
            return None
        return Round(self._callers, {_HOST: partial(self._ask_host, scope)})

    def _ask_host(self, scope: Scope) -> RemoteHost:
        with self.connection.sensing.use() as link:
            return ask_host(link, scope)

    def _finish_host(
        self, host_round: Round[RemoteHost] | None, scope: Scope, end_s: float
    ) -> RemoteHost:
        """Read the local host, or take what the remote one answered; empty if it is late."""
        if host_round is None:
            return RemoteHost(
                pcpus=host.read_pcpus(self._root) if Scope.CPU in scope else (),
                memory=host.read_memory(self._root) if Scope.MEMORY in scope else None,
            )
        told = host_round.finish(end_s).fresh.get(_HOST, RemoteHost())
        self._cpu_map = told.cpu_map or self._cpu_map
        return told

    def _current_facts(self) -> tuple[HostFact, ...]:
        if self.connection.is_local and time.monotonic() >= self._next_facts_s:
            self._facts = read_facts(self._root)
            self._next_facts_s = time.monotonic() + _FACTS_INTERVAL_S
        return self._facts

    def _read_affinity(self, key: VcpuKey) -> frozenset[int]:
        """Read back where a vCPU may run: from the kernel where it is local."""
        thread_id = self._local_vcpus.thread_id(key)
        if thread_id is not None:
            return thread_affinity(thread_id)
        with self.connection.acting.use() as link:
            affinities = {info.vcpu: info.affinity for info in link.vcpus(key.uuid)}
        affinity = affinities.get(key.vcpu, frozenset[int]())
        self._asked_vcpus.note_affinity(key, affinity)
        return affinity
