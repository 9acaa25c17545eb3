"""Make sure that the threads found are the guest's vCPUs, by comparing with libvirt's figures."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from virtbalance.hypervisor.link import VcpuInfo
from virtbalance.hypervisor.processes import find_vcpu_threads
from virtbalance.hypervisor.schedstat import read_run_ns

# libvirt counts in clock ticks of 10 ms, and kernels that account by tick drift a little.
_TOLERANCE_NS = 50_000_000
_TOLERANCE_RATIO = 0.02


def confirmed_threads(
    pid: int, proc: Path, ask_libvirt: Callable[[], Sequence[VcpuInfo]]
) -> tuple[Mapping[int, int] | None, str]:
    """Return the vCPU threads of a process (index to thread id), or ``None`` and the doubt.

    libvirt's run time of each vCPU must lie between two readings of ours taken around its answer.
    """
    threads = find_vcpu_threads(pid, proc)
    before = {index: read_run_ns(pid, thread, proc) for index, thread in threads.items()}
    told = {info.vcpu: info.run_ns for info in ask_libvirt()}
    if threads.keys() != told.keys():
        return None, f"its threads show vCPUs {list(threads)}, libvirt {sorted(told)}"
    for index, thread in threads.items():
        low, high = before[index], read_run_ns(pid, thread, proc)
        if low is None or high is None:
            return None, f"vCPU {index} has no schedstat"
        slack_ns = _TOLERANCE_NS + high * _TOLERANCE_RATIO
        if not low - slack_ns <= told[index] <= high + slack_ns:
            return None, f"vCPU {index} ran {high} ns by schedstat, {told[index]} ns by libvirt"
    return threads, ""
