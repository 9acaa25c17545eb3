"""Memory of a host and its guests: wants, caches, balloons, swap, and what shortage costs.

One guest of maximum X with balloon size C. Its kernel keeps reserve = 30 MiB + 3 % of X for itself,
so programs have room = C - reserve:

    want      grows at 400 MiB/s at most, as fast as memory is allocated; falls at once
    used      follows want, at 400 MiB/s, and is never above room
    cache     is empty at the start, fills what room is left at 100 MiB/s up to its own want;
              yields at once
    shortfall = max(0, want - room) / want
    speed     = 1 / (1 + 15 x shortfall), of full speed; without swap (or with swap full) these
                seconds also count as out of memory
    available = C - reserve (MemTotal), unused = available - used - cache, usable = unused + cache

Worked example: X = 2048 MiB, C = 512 MiB: reserve 91.4, room 420.6. With want 100 and cache 115
the guest uses 306 MiB of its 512, and 320.6 MiB are usable.

A kernel with swap keeps 2 % of room usable, programs' own files that are read again and again: what
is in use is swapped out for it, at a tenth of the balloon's speed.

The balloon takes 500 MiB/s, gives 1000 MiB/s. Taking stops when nothing is usable ("out of puff"),
with swap until something is again. Asking a guest without swap for more than
1.25 of its usable memory lets its out-of-memory killer strike once. With autodeflate MemTotal does
not follow the balloon, and a short guest opens its balloon by itself.

The host: own use + memory the guests have touched + 64 MiB a guest for QEMU itself. What guests
free stays touched until the balloon takes it (or at once with free page reporting). What does not
fit is on the host's swap and slows everyone down to 1 / (1 + 20 x excess / total).

Not modelled: which pages are hot, huge pages, compaction, KSM; slowness of memory does not slow the
CPU model's work.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass

from virtbalance.model.guest import GuestDefinition
from virtbalance.model.snapshot import HostMemory, MemorySample
from virtbalance.simulation.errors import ImpossibleStateError
from virtbalance.simulation.guest import SimMemory
from virtbalance.simulation.machine import SimMachine
from virtbalance.simulation.want import MIB, Consumer, ConsumeRun

STEP_S = 0.25
QEMU_KIB = 64 * MIB
"""What the host spends on a guest besides the guest's memory."""
_ALLOCATE_KIB_S = 400.0 * MIB
_CACHE_KIB_S = 100.0 * MIB
_SWAP_OUT_RATIO = 0.1
_KEPT_RATIO = 0.02
_PRESSURE_MEMORY_S = 10.0
_THRASH_FAULTS_S = 200.0
_PAGE_KIB = 4.0


@dataclass(frozen=True, slots=True)
class GuestMemoryTruth:
    """What is really so in one guest."""

    want_kib: int
    used_kib: int
    cache_kib: int
    usable_kib: int
    actual_kib: int
    target_kib: int
    touched_kib: int
    performance_ratio: float
    """Of full speed, now."""
    performance_s: float
    """The same, summed over time."""
    out_of_memory_s: float
    kills: int
    """Times the out-of-memory killer struck because the balloon asked too much."""
    program: Consumer | None


class GuestMemory:
    """One guest's memory while it runs."""

    def __init__(self, memory: SimMemory, definition: GuestDefinition, started_s: float) -> None:
        self._memory = memory
        self._definition = definition
        self._started_s = started_s
        self._reserve_kib = 30.0 * MIB + 0.03 * memory.maximum_kib
        self._run = ConsumeRun(memory.program) if memory.program else None
        first_kib = float(memory.balloon_kib or memory.maximum_kib)
        self.target_kib = first_kib
        booting = memory.balloon.ready_after_s > 0 or not self.has_driver
        self._set_size(float(memory.maximum_kib) if booting else first_kib)
        self._curve_kib = self.want_kib = memory.want.kib(0.0)
        self._used_kib = min(self.want_kib, self._room_kib)
        self._cache_kib = 0.0
        self.touched_kib = self._reserve_kib + self._used_kib + self._cache_kib
        self._swapped_kib = self._swap_in_kib = self._swap_out_kib = self._faults = 0.0
        self._performance_ratio, self._performance_s = 1.0, 0.0
        self._oom_s, self._kills = 0.0, 0
        self._judged = False
        self.paused = False
        self.stats_period_s = definition.stats_period_s
        self._told = self._figures(0)
        self._next_told_s = -math.inf

    @property
    def maximum_kib(self) -> int:
        """Size without a balloon."""
        return self._memory.maximum_kib

    @property
    def has_driver(self) -> bool:
        """Whether anything in the guest listens to the balloon."""
        return self._definition.balloon and self._memory.balloon.present

    def _set_size(self, kib: float) -> None:
        self.actual_kib = kib
        self._room_kib = max(0.0, kib - self._reserve_kib)

    @property
    def _usable_kib(self) -> float:
        return max(0.0, self._room_kib - self._used_kib)

    # Commands

    def set_target(self, target_kib: int) -> None:
        """Ask the driver for a size; libvirt has checked that it is at most the maximum."""
        self.target_kib = float(target_kib)
        self._judged = False

    # Time

    def advance(self, now_s: float, dt_s: float, host_slowdown: float) -> None:
        """Go on for ``dt_s``, at most ``STEP_S``, ending at ``now_s``."""
        since_s = now_s - self._started_s
        if self.has_driver and since_s >= self._memory.balloon.ready_after_s:
            self._move_balloon(since_s, dt_s)
        self._want(since_s, dt_s)
        self._fill(dt_s)
        self._suffer(dt_s, host_slowdown)
        self._check()

    def _check(self) -> None:
        """Raise if there is memory from nowhere."""
        if not 0 < self.actual_kib <= self._memory.maximum_kib + 0.5:
            raise ImpossibleStateError(f"a balloon of {self.actual_kib} KiB")
        in_use_kib = self._used_kib + self._cache_kib
        if in_use_kib > self._room_kib + 0.5 or self.touched_kib > self.actual_kib + 0.5:
            raise ImpossibleStateError(f"{in_use_kib} KiB in use of {self.actual_kib}")

    def _move_balloon(self, since_s: float, dt_s: float) -> None:
        balloon = self._memory.balloon
        if any(start <= since_s < end for start, end in balloon.stuck_s):
            return
        short_kib = self.want_kib - self._room_kib
        if self._definition.autodeflate and short_kib > 0:
            goal_kib = min(float(self._memory.maximum_kib), self.actual_kib + short_kib)
        else:
            goal_kib = self.target_kib
        delta_kib = goal_kib - self.actual_kib
        if delta_kib < 0:
            self._strike_if_asked_too_much(-delta_kib)
            delta_kib = -min(-delta_kib, balloon.inflate_kib_s * dt_s, self._usable_kib)
        else:
            delta_kib = min(delta_kib, balloon.deflate_kib_s * dt_s)
        grain_kib = balloon.granularity_kib
        self._set_size(self.actual_kib + math.trunc(delta_kib / grain_kib) * grain_kib)

    def _strike_if_asked_too_much(self, asked_kib: float) -> None:
        # Judged once for each command, on what was usable when it came.
        judged, self._judged = self._judged, True
        if judged or self._memory.swap_kib or self._definition.autodeflate:
            return
        if asked_kib > 1.25 * max(self._usable_kib, 1.0):
            self._kills += 1
            if self._run is not None:
                self._run.kill()

    @property
    def _swap_left_kib(self) -> float:
        return self._memory.swap_kib - self._swapped_kib

    def _want(self, since_s: float, dt_s: float) -> None:
        curve_kib = self._memory.want.kib(since_s)
        self._curve_kib = min(curve_kib, self._curve_kib + _ALLOCATE_KIB_S * dt_s)
        self.want_kib = self._curve_kib
        if self._run is not None:
            ratio = self.actual_kib / self._memory.maximum_kib
            # Pages that are taken and not touched yet are no longer to be had.
            left_kib = self._room_kib - self.want_kib - self._run.taken_kib
            self._run.advance(since_s, dt_s, left_kib, ratio)
            self.want_kib += self._run.taken_kib

    def _fill(self, dt_s: float) -> None:
        """Let programs and then files have the room."""
        grown_kib = self._used_kib + _ALLOCATE_KIB_S * dt_s
        self._used_kib = min(self.want_kib, grown_kib, self._swap_out(dt_s))
        left_kib = self._room_kib - self._used_kib
        cached_kib = self._cache_kib + _CACHE_KIB_S * dt_s
        self._cache_kib = min(self._memory.cache_kib, cached_kib, left_kib)
        in_use_kib = self._reserve_kib + self._used_kib + self._cache_kib
        if self._definition.free_page_reporting:
            self.touched_kib = 0.0
        self.touched_kib = min(max(self.touched_kib, in_use_kib), self.actual_kib)

    def _swap_out(self, dt_s: float) -> float:
        """Return what programs may have in memory: all the room, or what their kernel permits."""
        pushed_kib = _SWAP_OUT_RATIO * self._memory.balloon.inflate_kib_s * dt_s
        pushed_kib = min(pushed_kib, self._swap_left_kib)
        kept_kib = _KEPT_RATIO * self._room_kib if pushed_kib else 0.0
        return min(self._room_kib, max(self._room_kib - kept_kib, self._used_kib - pushed_kib))

    def _suffer(self, dt_s: float, host_slowdown: float) -> None:
        """Swap, count what is lacking, and be slow."""
        lacking_kib = max(0.0, self.want_kib - self._room_kib)
        shortfall = lacking_kib / self.want_kib if lacking_kib else 0.0
        swapped_kib = min(lacking_kib, float(self._memory.swap_kib))
        moved_kib = swapped_kib - self._swapped_kib
        self._swap_out_kib += max(0.0, moved_kib)
        self._swap_in_kib += max(0.0, -moved_kib)
        if swapped_kib:  # what is swapped out is wanted: it comes and goes
            thrash_kib = min(swapped_kib, _CACHE_KIB_S) * dt_s
            self._swap_in_kib += thrash_kib
            self._swap_out_kib += thrash_kib
            self._faults += thrash_kib / (8 * _PAGE_KIB)  # swap is read ahead by 8 pages
        self._swapped_kib = swapped_kib
        if self._usable_kib < 0.02 * self.actual_kib:  # programs' own files are read again
            self._faults += _THRASH_FAULTS_S * dt_s
        if lacking_kib > swapped_kib:
            self._oom_s += dt_s
        self._performance_ratio = host_slowdown / (1.0 + 15.0 * shortfall)
        self._performance_s += self._performance_ratio * dt_s

    # What is seen

    def tell(self, now_s: float, wall_s: float) -> None:
        """Let the driver write its statistics if it is time to."""
        since_s = now_s - self._started_s
        if self.paused or self.stats_period_s <= 0 or now_s < self._next_told_s:
            return
        if not self._talks(since_s):
            return
        self._told = self._figures(int(wall_s))
        periods = math.floor(since_s / self.stats_period_s + 1e-9) + 1
        self._next_told_s = self._started_s + periods * self.stats_period_s

    def _talks(self, since_s: float) -> bool:
        statistics = self._memory.statistics
        ready = since_s >= self._memory.balloon.ready_after_s
        silent = any(start <= since_s < end for start, end in statistics.silent_s)
        return self.has_driver and statistics.present and ready and not silent

    def _figures(self, last_update_s: int) -> MemorySample:
        available_kib = self._room_kib
        if self._definition.autodeflate:
            available_kib = self._memory.maximum_kib - self._reserve_kib
        unused_kib = self._room_kib - self._used_kib - self._cache_kib
        return MemorySample(
            maximum_kib=self._memory.maximum_kib,
            actual_kib=round(self.actual_kib),
            available_kib=int(available_kib),
            unused_kib=int(max(0.0, unused_kib)),
            usable_kib=int(self._usable_kib),
            swap_in_kib=int(self._swap_in_kib),
            swap_out_kib=int(self._swap_out_kib),
            major_faults=int(self._faults),
            last_update_s=last_update_s,
        )

    def sample(self, now_s: float) -> MemorySample:
        """Return what libvirt would answer now."""
        told = self._told
        rss_kib = round(self.touched_kib) + QEMU_KIB
        actual_kib = round(self.actual_kib)
        if told.last_update_s == 0:
            last_update_s = 0 if self._definition.balloon else None
            return MemorySample(
                told.maximum_kib, actual_kib, rss_kib=rss_kib, last_update_s=last_update_s
            )
        lie = self._memory.statistics.lie
        unused_kib, usable_kib = told.unused_kib, told.usable_kib
        swap_in_kib, faults = told.swap_in_kib or 0, told.major_faults or 0
        if lie is not None:
            since_s = now_s - self._started_s
            unused_kib = unused_kib if lie.unused_kib is None else lie.unused_kib
            usable_kib = usable_kib if lie.usable_kib is None else lie.usable_kib
            swap_in_kib += int(lie.swap_in_kib_s * since_s)
            faults += int(lie.major_faults_s * since_s)
        return MemorySample(
            maximum_kib=told.maximum_kib,
            actual_kib=actual_kib,
            available_kib=told.available_kib,
            unused_kib=unused_kib,
            usable_kib=usable_kib,
            swap_in_kib=swap_in_kib,
            swap_out_kib=told.swap_out_kib,
            major_faults=faults,
            rss_kib=rss_kib,
            last_update_s=told.last_update_s,
        )

    def truth(self) -> GuestMemoryTruth:
        """Return what is really so."""
        return GuestMemoryTruth(
            want_kib=round(self.want_kib),
            used_kib=round(self._used_kib),
            cache_kib=round(self._cache_kib),
            usable_kib=round(self._usable_kib),
            actual_kib=round(self.actual_kib),
            target_kib=round(self.target_kib),
            touched_kib=round(self.touched_kib),
            performance_ratio=self._performance_ratio,
            performance_s=self._performance_s,
            out_of_memory_s=self._oom_s,
            kills=self._kills,
            program=self._run.state if self._run else None,
        )


class HostMemoryModel:
    """The host's memory: what its guests have touched, its own use, swap and pressure."""

    def __init__(self, machine: SimMachine) -> None:
        self._machine = machine
        self._some_ratio = 0.0
        self.excess_kib = 0.0

    def advance(self, now_s: float, dt_s: float, guests: Collection[GuestMemory]) -> None:
        """Go on for ``dt_s``: first the host's state, then each guest under it."""
        self._settle(now_s, guests)
        slowdown = self.slowdown_ratio
        for guest in guests:
            if not guest.paused:
                guest.advance(now_s, dt_s, slowdown)
        self._settle(now_s, guests)
        stalled = 1.0 - self.slowdown_ratio
        self._some_ratio += (stalled - self._some_ratio) * min(1.0, dt_s / _PRESSURE_MEMORY_S)

    def _settle(self, now_s: float, guests: Collection[GuestMemory]) -> None:
        over_kib = self._in_use_kib(now_s, guests) - self._machine.memory_kib
        self.excess_kib = max(0.0, over_kib)
        if self.excess_kib > self._machine.swap_kib:
            raise ImpossibleStateError("more memory in use than the host has with its swap")

    def _in_use_kib(self, now_s: float, guests: Collection[GuestMemory]) -> float:
        own_kib = self._machine.other_memory.kib(now_s)
        return own_kib + sum(guest.touched_kib + QEMU_KIB for guest in guests)

    @property
    def slowdown_ratio(self) -> float:
        """Speed of every guest under the host's over-use, of full speed."""
        return 1.0 / (1.0 + 20.0 * self.excess_kib / self._machine.memory_kib)

    def sample(self, now_s: float, guests: Collection[GuestMemory]) -> HostMemory:
        """Return what the host's own files would show."""
        free_kib = self._machine.memory_kib - self._in_use_kib(now_s, guests)
        return HostMemory(
            total_kib=self._machine.memory_kib,
            available_kib=max(0, round(free_kib)),
            pressure_some_ratio=self._some_ratio,
            pressure_full_ratio=self._some_ratio / 2,
        )
