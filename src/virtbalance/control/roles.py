"""Making a program's role of its settings and a policy."""

from collections.abc import Callable, Sequence
from typing import Any

from virtbalance.control.cpu_role import CpuRole, CpuRoleSettings
from virtbalance.control.memory_role import MemoryRole, MemoryRoleSettings
from virtbalance.control.role import Role
from virtbalance.control.settings import CpuSettings, MemorySettings
from virtbalance.model.reservation import Reservation


def make_role(
    settings: CpuSettings | MemorySettings,
    policy: Any,
    policy_config: Any,
    reservations: Callable[[], Sequence[Reservation]] = tuple,
) -> Role:
    """Return the role of the program that has these settings; only memory can be reserved."""
    if isinstance(settings, CpuSettings):
        return CpuRole(policy, policy_config, CpuRoleSettings.of(settings))
    return MemoryRole(policy, policy_config, MemoryRoleSettings.of(settings), reservations)
