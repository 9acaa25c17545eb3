"""What a lab guest is to be like."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from virtbalance.lab.errors import LabError

SMALLEST_MIB = 128
"""With less the guest's kernel does not come up."""

NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}")
"""Names stand in socket paths, which are limited to 108 bytes."""


class Balloon(enum.Enum):
    """How far a guest takes part in ballooning."""

    DRIVEN = "driven"
    DRIVERLESS = "driverless"
    """The device is there, the guest loads no driver: targets are accepted, nothing moves."""
    NONE = "none"
    """There is no device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestSpec:
    """One guest; memory in MiB. Raises LabError for values no guest could have."""

    name: str
    vcpus: int = 1
    maximum_vcpus: int | None = None
    """Room for vCPU hot-plug; none unless given."""
    maximum_mib: int = 512
    current_mib: int | None = None
    """The balloon's size at start; the maximum unless given."""
    pins: tuple[frozenset[int], ...] = ()
    """Host CPUs each vCPU starts on, one set a vCPU, an empty set for any; () pins nothing."""
    balloon: Balloon = Balloon.DRIVEN
    autodeflate: bool = False
    free_page_reporting: bool = False
    stats_period_s: int = 1
    """How often the balloon's statistics are gathered; 0 for not at all."""
    zram_mib: int = 0
    """Size of a swap on compressed memory; 0 for no swap."""
    persistent: bool = False
    metadata: str = ""
    """An XML element with a namespace of its own, put into the domain's metadata."""

    def __post_init__(self) -> None:
        if not NAME_PATTERN.fullmatch(self.name):
            raise LabError(f"{self.name!r} is no name for a guest (1 to 40 letters, digits, _ . -)")
        if not 1 <= self.vcpus <= self.most_vcpus <= 255:
            raise LabError(f"{self.name}: 1 to 255 vCPUs, the maximum not below the number")
        if not SMALLEST_MIB <= self.start_mib <= self.maximum_mib:
            raise LabError(
                f"{self.name}: memory {self.start_mib} of {self.maximum_mib} MiB"
                f" (at least {SMALLEST_MIB}, at most the maximum)"
            )
        if self.pins and len(self.pins) != self.vcpus:
            raise LabError(f"{self.name}: {len(self.pins)} pins for {self.vcpus} vCPUs")

    @property
    def most_vcpus(self) -> int:
        """The number of vCPUs it can grow to."""
        return self.vcpus if self.maximum_vcpus is None else self.maximum_vcpus

    @property
    def start_mib(self) -> int:
        """The balloon's size at start."""
        return self.maximum_mib if self.current_mib is None else self.current_mib
