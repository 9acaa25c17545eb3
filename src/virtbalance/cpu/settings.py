"""Settings of the CPU estimator and guard: simple types, units in names, checked when built."""

from dataclasses import dataclass

GAP_SAMPLES = 3
"""Two readings this many samples apart mean a suspend or a stall."""


@dataclass(frozen=True, slots=True)
class DemandSettings:
    """How counters become demand (cpu.md, sections 1 to 4)."""

    sample_s: float = 1.0
    """Expected time between two samples."""
    window_s: float = 1.0
    """Demand is formed over at least this long: shorter windows miss late-credited waiting."""
    slot_s: float = 0.5
    """Spacing of the remembered demands; a whole number of samples is taken."""
    history_slots: int = 24
    """Remembered demands for each vCPU."""
    settle_s: float = 2.0
    """A changed demand is believed after it has lasted this long."""
    transient_s: float = 6.0
    """A demand near a whole pCPU is believed after this long: guests at launch show that for 4 to
    5 s, whatever they do later."""
    saturated_ratio: float = 0.75
    """What counts as near a whole pCPU; launch transients read 0.85 to 1."""
    other_half_life_s: float = 4.0
    """Smoothing of the work on a pCPU that is not a vCPU's."""

    def __post_init__(self) -> None:
        for name in ("sample_s", "window_s", "slot_s", "settle_s", "other_half_life_s"):
            _check(self, name, 0.01, 3600)
        _check(self, "transient_s", self.settle_s, 3600)
        _check(self, "saturated_ratio", 0.0, 1.0)
        _check(self, "history_slots", 4, 1000)

    @property
    def gap_ns(self) -> float:
        """What lies between two readings further apart than this is not believed."""
        return GAP_SAMPLES * self.sample_s * 1e9


@dataclass(frozen=True, slots=True)
class GuardSettings:
    """How much any policy may change in one tick (cpu.md, section 11)."""

    pins: int = 4
    """Pin changes that are always allowed in a tick."""
    pins_ratio: float = 0.02
    """Or this share of all vCPUs, where that is more."""
    gross_pins: int = 64
    """Under gross imbalance this many, or twice the usual where that is more: a pin costs about
    4 ms, and a mapping that is begun is better finished from the same look at the host."""
    cooldown_s: float = 5.0
    """A vCPU that was moved stays at least this long, unless it is served much worse than
    others."""
    starved_ratio: float = 0.8
    """Much worse: less than this times the average share of demand that is met."""

    def __post_init__(self) -> None:
        _check(self, "pins", 1, 10_000)
        _check(self, "pins_ratio", 0.0, 1.0)
        _check(self, "gross_pins", 1, 10_000)
        _check(self, "cooldown_s", 0.0, 3600)
        _check(self, "starved_ratio", 0.0, 1.0)


def sample_period_s(interval_s: float) -> float:
    """Return how often to sample when deciding every ``interval_s`` (cpu.md, section 1)."""
    return min(interval_s, 1.0, max(0.1, interval_s / 4))


def _check(settings: object, name: str, low: float, high: float) -> None:
    value = getattr(settings, name)
    if not low <= value <= high:
        raise ValueError(f"{name} must be {low:g} to {high:g}, got {value:g}")
