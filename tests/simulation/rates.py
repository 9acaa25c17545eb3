"""Rates over a window, read through the hypervisor's door as an estimator would."""

from typing import NamedTuple

from virtbalance.model.guest import VcpuKey
from virtbalance.model.snapshot import Scope, VcpuSample
from virtbalance.simulation.host import SimulatedHost


class Rates(NamedTuple):
    run: float
    wait: float

    @property
    def idle(self) -> float:
        return 1.0 - self.run - self.wait


def vcpus(host: SimulatedHost) -> dict[VcpuKey, VcpuSample]:
    snapshot = host.sample(Scope.CPU, 1.0)
    return {VcpuKey(g.uuid, v.index): v for g in snapshot.guests for v in g.vcpus}


def rates(host: SimulatedHost, window_s: float = 20.0, settle_s: float = 2.0) -> list[Rates]:
    """Return run and wait ratios of all vCPUs in order of their keys."""
    host.advance(settle_s)
    before = vcpus(host)
    host.advance(window_s)
    after = vcpus(host)
    window_ns = window_s * 1e9
    result = []
    for key, old in before.items():
        new_wait, old_wait = after[key].wait_ns, old.wait_ns
        assert new_wait is not None
        assert old_wait is not None
        run_ns = after[key].run_ns - old.run_ns
        result.append(Rates(run_ns / window_ns, (new_wait - old_wait) / window_ns))
    return result


def jain(values: list[float]) -> float:
    return sum(values) ** 2 / (len(values) * sum(value * value for value in values))
