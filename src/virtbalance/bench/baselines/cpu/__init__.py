"""CPU baselines by name."""

from collections.abc import Mapping

from virtbalance.bench.baselines.cpu.greedy import Greedy
from virtbalance.bench.baselines.cpu.lpt import Lpt
from virtbalance.bench.baselines.cpu.lpt_5 import Lpt5
from virtbalance.bench.baselines.cpu.lpt_10 import Lpt10
from virtbalance.bench.baselines.cpu.none import NoPins
from virtbalance.bench.baselines.cpu.one_move import OneMove
from virtbalance.bench.baselines.cpu.round_robin import RoundRobin
from virtbalance.bench.baselines.cpu.threshold import Threshold
from virtbalance.cpu.policy import CpuPolicy

CPU_BASELINES: Mapping[str, type[CpuPolicy]] = {
    policy.name: policy
    for policy in (NoPins, Threshold, RoundRobin, Lpt, Lpt5, Lpt10, Greedy, OneMove)
}
