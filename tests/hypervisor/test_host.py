"""Counters of a local host, from literal /proc texts."""

from pathlib import Path

from tests.hypervisor.trees import write_tree
from virtbalance.hypervisor.host import (
    parse_stat,
    parse_steal_ratio,
    read_boot_id,
    read_memory,
    read_pcpus,
)
from virtbalance.model.snapshot import HostMemory, PcpuSample

STAT = """\
cpu  2000 20 1000 90000 300 7 70 50 500 5
cpu0 1000 10 500 45000 150 3 30 20 250 2
cpu9 1000 10 500 45000 150 4 40 30 250 3
intr 145040 0 0
ctxt 1990473
"""
MEMINFO = """\
MemTotal:       24684096 kB
MemFree:        23971824 kB
MemAvailable:   24074332 kB
Buffers:            2820 kB
SwapTotal:       2097148 kB
SwapFree:        2000000 kB
HugePages_Total:       0
"""
PRESSURE = """\
some avg10=12.50 avg60=1.00 avg300=0.10 total=123456
full avg10=2.25 avg60=0.50 avg300=0.05 total=23456
"""


def test_busy_time_is_what_is_neither_idle_nor_stolen() -> None:
    ms = 1_000_000
    assert parse_stat(STAT, now_ns=500_000 * ms) == (
        PcpuSample(0, busy_ns=48_300 * ms, steal_ns=200 * ms),
        PcpuSample(9, busy_ns=48_200 * ms, steal_ns=300 * ms),
    )


def test_what_ticks_miss_of_the_work_counts_as_busy() -> None:
    # half of the second between them is idle, but ticks met a program only 10 times of 100
    before, after = "cpu0 5 0 0 95 0 0 0 0\n", "cpu0 15 0 0 145 0 0 0 0\n"
    (first,), (second,) = parse_stat(before, 1_000_000_000), parse_stat(after, 2_000_000_000)
    assert second.busy_ns - first.busy_ns == 500_000_000


def test_stat_of_an_old_kernel_with_two_digits_more_or_less(tmp_path: Path) -> None:
    write_tree(tmp_path, {"proc/stat": "cpu  1 0 1 1 0 0 0 0\ncpu0 1 0 1 1 0 0 0 0\n"})
    assert [pcpu.id for pcpu in read_pcpus(tmp_path)] == [0]


def test_share_that_was_stolen() -> None:
    assert parse_steal_ratio(STAT) == 50 / (2000 + 20 + 1000 + 7 + 70 + 50)
    assert parse_steal_ratio("") == 0


def test_memory(tmp_path: Path) -> None:
    files = {
        "proc/meminfo": MEMINFO,
        "proc/pressure/memory": PRESSURE,
        "sys/kernel/mm/ksm/pages_sharing": "256\n",
    }
    assert read_memory(write_tree(tmp_path, files)) == HostMemory(
        total_kib=24684096,
        available_kib=24074332,
        pressure_some_ratio=0.125,
        pressure_full_ratio=0.0225,
        ksm_shared_kib=1024,
    )


def test_memory_of_a_kernel_without_pressure_and_ksm(tmp_path: Path) -> None:
    memory = read_memory(write_tree(tmp_path, {"proc/meminfo": MEMINFO}))
    assert memory.pressure_some_ratio is None
    assert memory.pressure_full_ratio is None
    assert memory.ksm_shared_kib == 0


ARC = """\
12 1 0x01 98 26656 3934832109 1131211953
name                            type data
hits                            4    3017
c_min                           4    1073741824
c_max                           4    8589934592
size                            4    4294967296
"""


def test_what_zfs_gives_back_on_demand_is_available(tmp_path: Path) -> None:
    files = {"proc/meminfo": MEMINFO, "proc/spl/kstat/zfs/arcstats": ARC}
    assert read_memory(write_tree(tmp_path, files)).available_kib == 24074332 + 3 * 1024**2
    files["proc/spl/kstat/zfs/arcstats"] = ARC.replace("4294967296", "536870912")
    assert read_memory(write_tree(tmp_path, files)).available_kib == 24074332


def test_boot_id(tmp_path: Path) -> None:
    assert read_boot_id(tmp_path) == ""
    write_tree(tmp_path, {"proc/sys/kernel/random/boot_id": "6471100a-1b7e\n"})
    assert read_boot_id(tmp_path) == "6471100a-1b7e"
