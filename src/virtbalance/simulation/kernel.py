"""The figures by which the simulated kernel and its caches behave."""

from dataclasses import dataclass

from virtbalance.model.topology import Pcpu


@dataclass(frozen=True, slots=True)
class Kernel:
    """Constants of both CPU models.

    The costs of a move are those of cpu.md, section 8, less the 4 ms of API work in them.
    """

    slice_s: float = 0.003
    """How long a thread runs while others wait; 0: waiting is credited without delay."""
    balance_s: float = 0.032
    """Every so often a busy pCPU compares its run queue with the others'."""
    fluid_step_s: float = 0.1
    """The fluid model looks at changes of load no more often than this."""
    core_move_s: float = 0.0001
    """CPU time lost by a move to an SMT sibling."""
    cache_move_s: float = 0.0005
    """CPU time lost by a move under the same last-level cache."""
    node_move_s: float = 0.006
    """CPU time lost by a move to another last-level cache of the node."""
    remote_move_s: float = 0.046
    """CPU time lost by a move to another NUMA node."""
    remote_slowdown_ratio: float = 0.25
    """Extra CPU time per work while the memory is on another node."""
    smt_ratio: float = 0.62
    """Speed of a thread whose SMT sibling is busy all the time."""

    def move_cost_s(self, source: Pcpu, target: Pcpu) -> float:
        """Return the CPU time a thread loses to cold caches by this move."""
        if source.id == target.id:
            return 0.0
        if source.core == target.core:
            return self.core_move_s
        if source.llc == target.llc:
            return self.cache_move_s
        return self.node_move_s if source.node == target.node else self.remote_move_s
