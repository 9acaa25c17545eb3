"""vCPU counters: of local guests from held-open schedstat files, of all others from libvirt."""

import re
import time
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import libvirt

from virtbalance.hypervisor.errors import Fault, fault_of
from virtbalance.hypervisor.guest_reading import Guest
from virtbalance.hypervisor.link import Link
from virtbalance.hypervisor.schedstat import GuestThreads, Lineup
from virtbalance.hypervisor.vcpu_watch import VcpuWatch
from virtbalance.model.guest import VcpuKey
from virtbalance.model.snapshot import VcpuSample

_TIME_FIELD = re.compile(r"vcpu\.(\d+)\.time")
AFFINITY_LIFETIME_S = 30.0
WATCH_INTERVAL_S = 1.0


class _Held(NamedTuple):
    """What is kept open of one guest."""

    guest: Guest
    threads: GuestThreads
    watch: VcpuWatch

    def close(self) -> None:
        self.threads.close()
        self.watch.close()


class LocalVcpus:
    """The fast path: threads of guests of this machine, found and confirmed by ``guests``."""

    def __init__(self, proc: Path, mark: Callable[[str], None]) -> None:
        self._proc = proc
        self._mark = mark
        self._held: dict[str, _Held] = {}
        self._next_watch_s = 0.0
        self._lined_up: list[_Held] | None = None
        """Whose threads are in the lineup; ``None``: it must be formed anew."""
        self._lineup = Lineup(())

    def sample(self, guests: Iterable[Guest]) -> dict[str, tuple[VcpuSample, ...]]:
        """Read the threads of every guest that has known ones.

        A guest missing in the answer has ended; it is marked to be read again, as is one that has
        got another vCPU or lost one.
        """
        held = self._hold_all(guests)
        try:
            samples = self._read_all(held)
        except ProcessLookupError:
            samples = self._read_each(held)
        now_s = time.monotonic()
        if now_s >= self._next_watch_s:
            self._next_watch_s = now_s + WATCH_INTERVAL_S
            self._look_around(held)
        return samples

    def _hold_all(self, guests: Iterable[Guest]) -> list[_Held]:
        found = []
        for guest in guests:
            if guest.threads is None:
                self._drop(guest.uuid)
                continue
            held = self._held.get(guest.uuid)
            if held is None or held.guest is not guest:
                try:
                    held = self._hold(guest)
                except OSError:
                    self._give_up(guest)
                    continue
            found.append(held)
        return found

    def _read_all(self, held: list[_Held]) -> dict[str, tuple[VcpuSample, ...]]:
        """Read all guests' threads in one go. ProcessLookupError if one thread has ended."""
        if held != self._lined_up:
            self._lined_up = held
            self._lineup = Lineup([thread for one in held for thread in one.threads.open])
        rows = iter(self._lineup.read())
        return {one.guest.uuid: tuple(islice(rows, len(one.threads.open))) for one in held}

    def _read_each(self, held: list[_Held]) -> dict[str, tuple[VcpuSample, ...]]:
        """Read guest by guest, and leave out what has ended."""
        self._lined_up = None
        samples = {}
        for one in held:
            try:
                samples[one.guest.uuid] = one.threads.sample()
            except ProcessLookupError:
                self._give_up(one.guest)
            else:
                if not one.threads.complete:
                    self._mark(one.guest.uuid)
        return samples

    def _look_around(self, held: list[_Held]) -> None:
        """Notice what changes rarely: vCPUs plugged in, and those that have become realtime."""
        for one in held:
            try:
                if one.watch.sees_another():
                    self._mark(one.guest.uuid)
                if one.threads.classes_changed():
                    self._lined_up = None
            except OSError:
                self._mark(one.guest.uuid)

    def _give_up(self, guest: Guest) -> None:
        self._drop(guest.uuid)
        self._mark(guest.uuid)

    def thread_id(self, key: VcpuKey) -> int | None:
        """Return the thread of a vCPU, if it is held."""
        held = self._held.get(key.uuid)
        return held.threads.thread_ids.get(key.vcpu) if held else None

    def keep_only(self, guests: Mapping[str, Guest]) -> None:
        """Let go of guests that are not there any more."""
        for uuid in self._held.keys() - guests.keys():
            self._drop(uuid)

    def close(self) -> None:
        """Close every descriptor."""
        for uuid in list(self._held):
            self._drop(uuid)

    def _hold(self, guest: Guest) -> _Held:
        held = self._held.get(guest.uuid)
        if held is not None:
            known = held.guest
            if known.process == guest.process and known.threads == guest.threads:
                self._held[guest.uuid] = held = held._replace(guest=guest)
                return held
            self._drop(guest.uuid)
        assert guest.process is not None
        assert guest.threads is not None
        pid, threads = guest.process.pid, guest.threads
        watch = VcpuWatch(pid, threads.values(), self._proc)
        try:
            held = _Held(guest, GuestThreads(pid, threads, self._proc), watch)
        except OSError:
            watch.close()
            raise
        self._held[guest.uuid] = held
        return held

    def _drop(self, uuid: str) -> None:
        if (held := self._held.pop(uuid, None)) is not None:
            self._lined_up = None
            held.close()


class AskedVcpus:
    """The slow path: libvirt's statistics. Called from several threads, one guest each.

    Affinities are asked for less often than times: they change rarely, and after a pin of our
    own the new one is noted here.
    """

    def __init__(self) -> None:
        self._affinities: dict[str, tuple[str, float, dict[int, frozenset[int]]]] = {}
        self._no_statistics = False

    def ask(self, link: Link, guest: Guest) -> tuple[VcpuSample, ...]:
        """Ask for one guest's vCPUs; libvirtError as it comes."""
        if not self._no_statistics:
            statistics = self._statistics(link, guest.uuid)
            read_ns = time.monotonic_ns()
            indices = [int(m[1]) for name in statistics if (m := _TIME_FIELD.fullmatch(name))]
            if indices:
                affinity = self._known_affinities(link, guest, indices)
                return tuple(
                    VcpuSample(
                        index,
                        statistics[f"vcpu.{index}.time"],
                        statistics.get(f"vcpu.{index}.delay"),
                        read_ns,
                        affinity.get(index),
                    )
                    for index in sorted(indices)
                )
        return _from_vcpus(link, guest)

    def note_affinity(self, key: VcpuKey, cpus: frozenset[int]) -> None:
        """Remember an affinity that was read back after a pin."""
        if (known := self._affinities.get(key.uuid)) is not None:
            known[2][key.vcpu] = cpus

    def keep_only(self, guests: Mapping[str, Guest]) -> None:
        """Forget guests that are not there any more."""
        for uuid in self._affinities.keys() - guests.keys():
            self._affinities.pop(uuid, None)

    def _statistics(self, link: Link, uuid: str) -> Mapping[str, int]:
        try:
            return link.vcpu_statistics(uuid)
        except libvirt.libvirtError as error:
            if fault_of(error) is not Fault.UNSUPPORTED:
                raise
            self._no_statistics = True
            return {}

    def _known_affinities(
        self, link: Link, guest: Guest, indices: Iterable[int]
    ) -> Mapping[int, frozenset[int]]:
        known = self._affinities.get(guest.uuid)
        now_s = time.monotonic()
        is_good = known is not None and known[0] == guest.incarnation and now_s < known[1]
        if known is not None and is_good and known[2].keys() >= set(indices):
            return known[2]
        found = {info.vcpu: info.affinity for info in link.vcpus(guest.uuid)}
        self._affinities[guest.uuid] = (guest.incarnation, now_s + AFFINITY_LIFETIME_S, found)
        return found


def _from_vcpus(link: Link, guest: Guest) -> tuple[VcpuSample, ...]:
    """Ask by the older call, which every driver has and which does not tell waiting times."""
    infos = link.vcpus(guest.uuid)
    read_ns = time.monotonic_ns()
    return tuple(VcpuSample(v.vcpu, v.run_ns, None, read_ns, v.affinity) for v in infos)
