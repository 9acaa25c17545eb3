"""What a scenario file may contain: its tables as records, checked when they are built.

Sizes are MiB, times seconds of the simulated host, loads pCPUs (1.0 = one pCPU fully used).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from virtbalance.model.guest import RoleName

Spread = Literal["fixed", "exponential", "lognormal"]


# Loads of a vCPU


@dataclass(frozen=True, slots=True)
class IdleLoad:
    """``kind = "idle"``: does nothing."""


@dataclass(frozen=True, slots=True)
class HogLoad:
    """``kind = "hog"``: takes all it can get."""


@dataclass(frozen=True, slots=True)
class LoopLoad:
    """``kind = "loop"``: works, thinks, repeats: a closed loop."""

    duty: float
    work_ms: float = 10.0
    spread: Spread = "fixed"

    def __post_init__(self) -> None:
        _within(self, "duty", 0.0, 1.0)


@dataclass(frozen=True, slots=True)
class ArrivalsLoad:
    """``kind = "arrivals"``: work arrives whether or not the last is done."""

    rate: float
    work_ms: float = 10.0
    spread: Spread = "exponential"


@dataclass(frozen=True, slots=True)
class NoiseLoad:
    """``kind = "noise"``: a duty drawn anew each step around a mean."""

    mean: float
    deviation: float
    step_s: float = 1.0
    open: bool = False


@dataclass(frozen=True, slots=True)
class BurstsLoad:
    """``kind = "bursts"``: comes and goes; the vCPUs of one ``group`` do so together."""

    on_s: float
    off_s: float
    duty: float = 1.0
    spread: Spread = "exponential"
    group: str | None = None


@dataclass(frozen=True, slots=True)
class PhaseTable:
    """A closed loop for so many seconds; duty 0 is idle."""

    seconds: float
    duty: float

    def __post_init__(self) -> None:
        _within(self, "duty", 0.0, 1.0)


@dataclass(frozen=True, slots=True)
class PhasesLoad:
    """``kind = "phases"``: one closed loop after another, the last one for ever or over again."""

    phases: tuple[PhaseTable, ...]
    repeat: bool = False
    deviation: float = 0.0
    """Each second's duty is drawn around that of the phase with this standard deviation."""


Load = IdleLoad | HogLoad | LoopLoad | ArrivalsLoad | NoiseLoad | BurstsLoad | PhasesLoad

LOADS: Mapping[str, type[Any]] = {
    "idle": IdleLoad,
    "hog": HogLoad,
    "loop": LoopLoad,
    "arrivals": ArrivalsLoad,
    "noise": NoiseLoad,
    "bursts": BurstsLoad,
    "phases": PhasesLoad,
}


# Memory of a guest


@dataclass(frozen=True, slots=True)
class ConstantWant:
    """``kind = "constant"``: the same for ever."""

    mib: float


@dataclass(frozen=True, slots=True)
class RampWant:
    """``kind = "ramp"``: growth at a rate from one size to another."""

    from_mib: float
    to_mib: float
    rate_mib_s: float
    start_s: float = 0.0


@dataclass(frozen=True, slots=True)
class StepsWant:
    """``kind = "steps"``: pairs of seconds and MiB, the first at 0."""

    steps: tuple[tuple[float, float], ...]
    repeat_s: float | None = None


Want = ConstantWant | RampWant | StepsWant

WANTS: Mapping[str, type[Any]] = {
    "constant": ConstantWant,
    "ramp": RampWant,
    "steps": StepsWant,
}


@dataclass(frozen=True, slots=True)
class ProgramTable:
    """A program that takes memory to its guest's limit or to ``stop_mib``, then frees it all."""

    start_s: float = 20.0
    rate_mib_s: float = 18.0
    stop_mib: float | None = None


@dataclass(frozen=True, slots=True)
class BalloonTable:
    """The driver inside the guest, and its faults."""

    present: bool = True
    inflate_mib_s: float = 500.0
    deflate_mib_s: float = 1000.0
    ready_after_s: float = 0.0
    stuck_s: tuple[tuple[float, float], ...] = ()
    """Times since the guest's start, from and to."""


@dataclass(frozen=True, slots=True)
class StatisticsTable:
    """What the guest tells, and when it does not."""

    present: bool = True
    silent_s: tuple[tuple[float, float], ...] = ()
    lie_usable_mib: float | None = None
    """It says this is usable, whatever the truth."""


@dataclass(frozen=True, slots=True)
class MemoryTable:
    """Memory of one guest."""

    maximum_mib: float
    start_mib: float | None = None
    """Balloon at the start; the maximum unless given."""
    minimum_mib: float | None = None
    """The owner's wish; the coordinator's default unless given."""
    want: Want = ConstantWant(100.0)
    program: ProgramTable | None = None
    cache_mib: float = 115.0
    swap_mib: float = 0.0
    swap_told: bool = False
    """Its owner says so: otherwise it is known once the guest has used its swap."""
    balloon: BalloonTable = BalloonTable()
    statistics: StatisticsTable = StatisticsTable()
    autodeflate: bool = False


# Guests, host, events


@dataclass(frozen=True, slots=True)
class GuestTable:
    """One guest."""

    name: str
    vcpus: int = 1
    load: Load = IdleLoad()
    launch_s: float = 0.0
    """Shows 0.92 of a pCPU for this long before its load, as guests do at launch."""
    pin: tuple[int, ...] | None = None
    """pCPUs its vCPUs start on; anywhere unless given."""
    spread_over: tuple[int, ...] | None = None
    """Instead: vCPU j starts on the j-th of these alone, and over again."""
    weight: float = 1.0
    """The owner's weight for both programs, and the guest's CPU shares."""
    quota: float | None = None
    """CPU bandwidth limit of each vCPU, in pCPUs."""
    node: int | None = None
    """NUMA node where its memory is."""
    memory: MemoryTable | None = None
    starts_s: float = 0.0
    ends_s: float | None = None


@dataclass(frozen=True, slots=True)
class HostTable:
    """The host: ``pcpus`` equal ones, or nodes x caches x cores x threads."""

    pcpus: int | None = None
    nodes: int = 1
    caches: int = 1
    cores: int = 4
    threads: int = 1
    numbers: tuple[int, ...] = ()
    """CPU numbers of equal pCPUs where they have holes."""
    offline: tuple[int, ...] = ()
    memory_mib: float = 16384.0
    swap_mib: float = 65536.0
    other: Want = ConstantWant(1024.0)
    """What the host itself uses of its memory."""
    other_work: Load = IdleLoad()
    """What the host itself does on each of its pCPUs."""
    model: Literal["fluid", "event"] = "fluid"


_EVENT_NEEDS: Mapping[str, tuple[str, ...]] = {
    "pause": ("guest",),
    "resume": ("guest",),
    "restart": ("guest",),
    "substitute": ("guest",),
    "pin": ("guest", "cpus"),
    "resize": ("guest", "mib"),
    "weight": ("guest", "weight"),
    "plug": ("guest", "vcpu", "load"),
    "unplug": ("guest", "vcpu"),
    "offline": ("cpu",),
    "online": ("cpu",),
    "lose-connection": (),
    "answer-late": ("guest", "seconds"),
}


@dataclass(frozen=True, slots=True)
class EventTable:
    """Something that happens on the host, once or every so often."""

    at_s: float
    kind: str
    guest: str | None = None
    """A guest's name, or a pattern for several."""
    vcpu: int = 0
    cpus: tuple[int, ...] = ()
    cpu: int | None = None
    mib: float | None = None
    weight: float | None = None
    load: Load | None = None
    seconds: float | None = None
    every_s: float | None = None
    until_s: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in _EVENT_NEEDS:
            raise ValueError(f"no event {self.kind!r}; there are: {', '.join(_EVENT_NEEDS)}")
        for name in _EVENT_NEEDS[self.kind]:
            if getattr(self, name) in (None, ()):
                raise ValueError(f"event {self.kind!r} needs {name!r}")


Operator = Literal["<=", ">=", "<", ">", "=="]


@dataclass(frozen=True, slots=True)
class CriterionTable:
    """What a metric must come to for the scenario to be passed."""

    metric: str
    op: Operator
    value: float
    from_s: float | None = None
    to_s: float | None = None
    """The part of the run that is looked at; all that is measured unless given."""


@dataclass(frozen=True, slots=True)
class TraceTable:
    """Guests made of recorded ones, drawn by the seed."""

    source: str
    """``planetlab``, ``bitbrains``, ``excerpt``, ``static``, or a CSV file (see docs/bench.md)."""
    vcpus: int = 256
    """Guests are drawn until they have so many vCPUs together (CPU scenarios)."""
    guests: int = 40
    """So many guests are drawn (memory scenarios)."""
    step_s: float = 4.0
    """Simulated seconds for each recorded value."""
    steps: int | None = None
    """Values used of each guest, from a random place on; all unless given."""
    load: float = 0.8
    """Values are scaled so that the mean demand is this share of the host's pCPUs."""
    open_ratio: float = 0.5
    """Share of vCPUs whose work arrives by itself; the others are closed loops."""
    deviation: float = 0.0
    """``static``: noise around each vCPU's mean."""
    cache_ratio: float = 0.2
    """Memory: page cache as a share of the maximum."""
    host_ratio: float | None = None
    """Memory: the host has this share of the sum of maxima, and 1.5 GiB."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One shape of a scenario file at one period: everything a run needs but policy and seed."""

    name: str
    """``FILE/SHAPE/PERIOD``."""
    title: str
    role: RoleName
    duration_s: float
    period_s: float
    tags: tuple[str, ...] = ()
    measure_from_s: float = 0.0
    """Metrics look at what is after this, where a criterion says nothing else."""
    record_s: float = 1.0
    """Spacing of what is recorded."""
    host: HostTable = HostTable()
    guests: tuple[GuestTable, ...] = ()
    trace: TraceTable | None = None
    events: tuple[EventTable, ...] = ()
    criteria: tuple[CriterionTable, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Overrides of ``[cpu]`` or ``[memory]`` of the settings file."""

    def __post_init__(self) -> None:
        _within(self, "duration_s", 1.0, 1e7)
        _within(self, "period_s", 0.01, 3600.0)
        _within(self, "record_s", 0.01, 3600.0)
        if not self.guests and self.trace is None:
            raise ValueError("a scenario needs guests or a trace")


def _within(table: object, name: str, low: float, high: float) -> None:
    value = getattr(table, name)
    if isinstance(value, str) or not low <= value <= high:
        raise ValueError(f"{name} must be {low:g} to {high:g}, got {value}")
