"""Memory baselines by name."""

from collections.abc import Mapping

from virtbalance.bench.baselines.memory.local import Local
from virtbalance.bench.baselines.memory.mom import Mom
from virtbalance.bench.baselines.memory.none import FullBalloons
from virtbalance.bench.baselines.memory.pi import Pi
from virtbalance.bench.baselines.memory.proxmox import Proxmox
from virtbalance.bench.baselines.memory.qmemman import Qmemman
from virtbalance.bench.baselines.memory.squeezed import Squeezed
from virtbalance.bench.baselines.memory.threshold import Threshold, ThresholdFixed
from virtbalance.memory.policy import MemoryPolicy

MEMORY_BASELINES: Mapping[str, type[MemoryPolicy]] = {
    policy.name: policy
    for policy in (
        FullBalloons,
        Threshold,
        ThresholdFixed,
        Mom,
        Proxmox,
        Squeezed,
        Qmemman,
        Pi,
        Local,
    )
}
