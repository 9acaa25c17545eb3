"""Finding a guest's process and its vCPU threads, from literal /proc texts."""

from pathlib import Path

from tests.hypervisor.trees import write_tree
from virtbalance.hypervisor.link import VcpuInfo
from virtbalance.hypervisor.processes import GuestProcess, find_process, find_vcpu_threads
from virtbalance.hypervisor.vcpu_threads import confirmed_threads

STAT = (
    "4711 (qemu-system-x86) S 1 4711 4711 0 -1 138412416 19931 0 0 0 94 28 0 0 20 0 6 0 145301 "
    "1807324160 35356 18446744073709551615"
)
ANYWHERE = frozenset({0, 1})


def guest_tree(root: Path) -> Path:
    files = {
        "run/one.pid": "4711",
        "run/old.pid": "99\n",
        "run/bad.pid": "",
        "proc/4711/stat": STAT,
    }
    threads = {
        "4711": ("qemu-system-x86", "68847468 22481150 867"),
        "4712": ("call_rcu", "1 1 1"),
        "4713": ("IO mon_iothread", "1 1 1"),
        "4715": ("CPU 10/KVM", "900000000 8 12"),
        "4714": ("CPU 0/KVM", "500000000 7 10"),
    }
    for thread_id, (name, schedstat) in threads.items():
        files[f"proc/4711/task/{thread_id}/comm"] = name + "\n"
        files[f"proc/4711/task/{thread_id}/schedstat"] = schedstat + "\n"
    return write_tree(root, files)


def test_process_by_pid_file_with_its_start_time(tmp_path: Path) -> None:
    guest_tree(tmp_path)
    folders = [tmp_path / "nowhere", tmp_path / "run"]
    assert find_process(folders, "one", tmp_path / "proc") == GuestProcess(4711, 145301)


def test_stale_broken_or_missing_pid_files_lead_nowhere(tmp_path: Path) -> None:
    guest_tree(tmp_path)
    for name in ("old", "bad", "none"):
        assert find_process([tmp_path / "run"], name, tmp_path / "proc") is None


def test_threads_by_name_in_order_of_vcpu(tmp_path: Path) -> None:
    proc = guest_tree(tmp_path) / "proc"
    assert list(find_vcpu_threads(4711, proc).items()) == [(0, 4714), (10, 4715)]
    assert find_vcpu_threads(99, proc) == {}


def confirmed(root: Path, *told: VcpuInfo) -> tuple[object, str]:
    return confirmed_threads(4711, guest_tree(root) / "proc", lambda: told)


def test_threads_are_trusted_when_libvirt_agrees(tmp_path: Path) -> None:
    told = [VcpuInfo(0, 490_000_000, ANYWHERE), VcpuInfo(10, 910_000_000, ANYWHERE)]
    assert confirmed(tmp_path, *told) == ({0: 4714, 10: 4715}, "")


def test_threads_are_doubted_when_times_disagree(tmp_path: Path) -> None:
    told = [VcpuInfo(0, 900_000_000, ANYWHERE), VcpuInfo(10, 500_000_000, ANYWHERE)]
    threads, doubt = confirmed(tmp_path, *told)
    assert threads is None
    assert "vCPU 0 ran 500000000 ns by schedstat, 900000000 ns by libvirt" in doubt


def test_threads_are_doubted_when_vcpus_differ(tmp_path: Path) -> None:
    threads, doubt = confirmed(tmp_path, VcpuInfo(0, 500_000_000, ANYWHERE))
    assert threads is None
    assert "[0, 10]" in doubt


def test_threads_are_doubted_without_schedstat(tmp_path: Path) -> None:
    proc = guest_tree(tmp_path) / "proc"
    (proc / "4711/task/4714/schedstat").unlink()
    told = [VcpuInfo(0, 1, ANYWHERE), VcpuInfo(10, 900_000_000, ANYWHERE)]
    assert confirmed_threads(4711, proc, lambda: told) == (None, "vCPU 0 has no schedstat")
