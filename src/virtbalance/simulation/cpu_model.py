"""What both CPU models are asked: threads in, counters out."""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from virtbalance.model.guest import VcpuKey
from virtbalance.model.topology import Topology
from virtbalance.simulation.streams import Streams
from virtbalance.simulation.workload import Beginning, Piece, Workload


class Counters(NamedTuple):
    """What schedstat shows of a thread."""

    run_ns: int
    wait_ns: int


@dataclass(frozen=True, slots=True)
class Thread:
    """One thread the kernel schedules."""

    key: VcpuKey
    workload: Workload
    source: random.Random
    """For the lengths of its work and thought."""
    stream: str
    """Names this thread where random numbers are drawn for its workload."""
    group: str
    """Threads of one group divide its shares."""
    shares: float = 1.0
    quota_ratio: float | None = None
    memory_node: int | None = None

    def begin(self, now_s: float, streams: Streams) -> Iterator[Piece]:
        """Return what it does from now on."""
        return self.workload.pieces(Beginning(now_s, streams, self.stream))


class CpuModel(Protocol):
    """Threads on pCPUs. Affinities given are never empty and lie on pCPUs that are on line."""

    def add(self, thread: Thread, affinity: frozenset[int]) -> None:
        """Let a thread start now."""

    def remove(self, key: VcpuKey) -> None:
        """Let a thread end."""

    def allow(self, key: VcpuKey, affinity: frozenset[int]) -> None:
        """Change where a thread may run."""

    def pause(self, key: VcpuKey, *, paused: bool) -> None:
        """Stop or continue a thread."""

    def set_topology(self, topology: Topology) -> None:
        """Take CPUs on line or off; no thread's affinity is on one that goes."""

    def advance(self, to_s: float) -> None:
        """Go on to this time. What workloads change just then is seen after it."""

    def counters(self) -> Mapping[VcpuKey, Counters]:
        """Return what schedstat would show now."""

    def work_s(self) -> Mapping[VcpuKey, float]:
        """Return the work done, in seconds of a pCPU of speed 1."""

    def demand_ratio(self) -> Mapping[VcpuKey, float]:
        """Return what each thread would use of a free pCPU now."""

    def busy_ns(self) -> Mapping[int, int]:
        """Return the time each pCPU was busy."""
