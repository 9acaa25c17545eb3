"""Who competes: installed policies, other systems' rules, a user's file; with or without guard.

A policy that could run in production runs here as there: same role, estimate and guard. Baselines
run without guard, as their originals have none. ``NAME+guard`` and ``NAME+bare`` say otherwise.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from virtbalance.bench.baselines.cpu import CPU_BASELINES
from virtbalance.bench.baselines.memory import MEMORY_BASELINES
from virtbalance.control.config import check_policy_tables, policy_config
from virtbalance.control.cpu_role import CpuRole, CpuRoleSettings
from virtbalance.control.memory_role import MemoryRole, MemoryRoleSettings
from virtbalance.control.policies import (
    PolicyError,
    load_policy_class,
    make_policy,
    policy_names,
)
from virtbalance.control.role import Role
from virtbalance.control.settings import CpuSettings, MemorySettings
from virtbalance.model.guest import RoleName, VcpuKey
from virtbalance.model.plan import (
    Amendment,
    CpuPlan,
    DesiredSize,
    MemoryPlan,
    Pin,
    Reason,
    Resize,
    Verdict,
)

_GUARD, _BARE = "+guard", "+bare"
ORACLE = "oracle"


def baselines(role: RoleName) -> Mapping[str, type[Any]]:
    """Return other systems' rules by name."""
    return CPU_BASELINES if role is RoleName.CPU else MEMORY_BASELINES


def contender_names(role: RoleName) -> tuple[str, ...]:
    """Return every policy that can compete under its own name."""
    yardstick = (ORACLE,) if role is RoleName.CPU else ()
    return (*policy_names(role), *baselines(role), *yardstick)


def check(role: RoleName, reference: str) -> None:
    """Raise ``PolicyError`` if there is no such contender."""
    if reference != ORACLE or role is not RoleName.CPU:
        _policy_class(role, _split(reference)[0])


def check_settings(references: Sequence[str], settings: CpuSettings | MemorySettings) -> None:
    """Raise ``PolicyError`` or ``ConfigError`` if a contender can't be had with these settings."""
    role = RoleName.CPU if isinstance(settings, CpuSettings) else RoleName.MEMORY
    known = list(contender_names(role))
    for reference in references:
        if reference != ORACLE:
            make_role(reference, settings)
            known.append(_policy_class(role, _split(reference)[0]).name)
    check_policy_tables(settings.policies, known, f"{role}.policies")


def _split(reference: str) -> tuple[str, bool | None]:
    """Return the policy's own name, and whether it is to be guarded where that is said."""
    for ending, guarded in ((_GUARD, True), (_BARE, False)):
        if reference.endswith(ending):
            return reference.removesuffix(ending), guarded
    return reference, None


def _policy_class(role: RoleName, name: str) -> type[Any]:
    known = baselines(role)
    if name in known:
        return known[name]
    try:
        return load_policy_class(role, name)
    except PolicyError as error:
        if "there are:" not in str(error):
            raise
        names = ", ".join(contender_names(role))
        raise PolicyError(
            f"no {role} policy {name!r}; there are: {names} (or FILE.py:CLASS)"
        ) from error


@dataclass(slots=True)
class Thinking:
    """Wall time a policy took; not part of its results, which are the same on every machine."""

    decisions: int = 0
    seconds: float = 0.0


class _Timed:
    """A policy whose decisions are timed."""

    def __init__(self, policy: Any, thinking: Thinking) -> None:
        self.name: str = policy.name
        self._policy = policy
        self._thinking = thinking

    def decide(self, state: Any, estimate: Any, config: Any, now_s: float) -> Any:
        """Decide."""
        began_s = time.perf_counter()
        try:
            return self._policy.decide(state, estimate, config, now_s)
        finally:
            self._thinking.decisions += 1
            self._thinking.seconds += time.perf_counter() - began_s


def make_role(
    reference: str, settings: CpuSettings | MemorySettings, policy: Any = None
) -> tuple[Role, Thinking]:
    """Return a contender's role; ``policy`` is used instead of looking the reference up.

    Raises ``PolicyError``, ``ConfigError``.
    """
    role = RoleName.CPU if isinstance(settings, CpuSettings) else RoleName.MEMORY
    name, guarded = _split(reference)
    config = None
    if policy is None:
        policy_class = _policy_class(role, name)
        values = settings.policies.get(policy_class.name, {})
        config = policy_config(policy_class, values, f"{role}.policies.{policy_class.name}")
        policy = make_policy(policy_class)
    if guarded is None:
        guarded = name not in baselines(role) and name != ORACLE
    thinking = Thinking()
    timed = _Timed(policy, thinking)
    if isinstance(settings, CpuSettings):
        parts = CpuRoleSettings.of(settings)
        return (CpuRole if guarded else BareCpuRole)(timed, config, parts), thinking
    memory_parts = MemoryRoleSettings.of(settings)
    return (MemoryRole if guarded else BareMemoryRole)(timed, config, memory_parts), thinking


class BareCpuRole(CpuRole):
    """The production role with a guard that lets everything through that can be asked for."""

    def guard(self, plan: CpuPlan | MemoryPlan, now_s: float) -> Verdict:
        """Refuse what is no pin of a vCPU there is; change nothing else."""
        del now_s
        assert isinstance(plan, CpuPlan)
        known: Mapping[VcpuKey, frozenset[int]] = {
            vcpu.key: vcpu.affinity for vcpu in self.estimate.vcpus
        }
        actions, amendments = [], []
        for pin in plan.pins:
            if not isinstance(pin, Pin) or pin.vcpu not in known or not pin.cpus:
                amendments.append(_nonsense(pin))
            elif pin.cpus != known[pin.vcpu]:
                actions.append(pin)
        return Verdict(tuple(actions), tuple(amendments))


class BareMemoryRole(MemoryRole):
    """The same for balloons: sizes are set at once and in one step."""

    def guard(self, plan: CpuPlan | MemoryPlan, now_s: float) -> Verdict:
        """Refuse what is no size of a guest there is; change nothing else."""
        del now_s
        assert isinstance(plan, MemoryPlan)
        targets = {guest.uuid: guest.target_kib for guest in self.estimate.guests}
        actions, amendments = [], []
        for size in plan.sizes:
            if (
                not isinstance(size, DesiredSize)
                or size.uuid not in targets
                or not isinstance(size.size_kib, int)
                or size.size_kib <= 0
            ):
                amendments.append(_nonsense(size))
            elif size.size_kib != targets[size.uuid]:
                actions.append(Resize(size.uuid, size.size_kib, size.reason))
        return Verdict((*self._reporting(), *actions), tuple(amendments))


def _nonsense(item: object) -> Amendment:
    reason = Reason("nonsense", "no such thing can be asked for")
    return Amendment("", type(item).__name__, None, reason)
