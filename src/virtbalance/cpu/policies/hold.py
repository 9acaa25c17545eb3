"""The policy that changes nothing: what the kernel makes of it, and what to fall back on."""

from dataclasses import dataclass

from virtbalance.model.cpu_estimate import CpuEstimate
from virtbalance.model.plan import CpuPlan


class Hold:
    """Leaves every vCPU where it is."""

    name = "hold"

    @dataclass(frozen=True, slots=True)
    class Config:
        """Nothing to set."""

    def decide(
        self,
        state: None,
        estimate: CpuEstimate,  # noqa: ARG002 -- the interface of every policy
        config: Config,  # noqa: ARG002
        now_s: float,  # noqa: ARG002
    ) -> tuple[CpuPlan, None]:
        """Return an empty plan."""
        return CpuPlan(), state
