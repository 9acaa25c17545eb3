"""What a host's owner is told."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.hypervisor.trees import write_tree
from virtbalance.hypervisor.facts import read_facts

QUIET = {
    "proc/cpuinfo": "processor : 0\nflags : fpu vme sse\n",
    "proc/stat": "cpu  1000 0 0 0 0 0 0 1\ncpu0 1000 0 0 0 0 0 0 1\n",
    "proc/self/cgroup": "0::/user.slice\n",
    "proc/self/status": "Name:\tpython\nCpus_allowed_list:\t0-3\n",
    "sys/devices/system/cpu/online": "0-3\n",
    "sys/fs/cgroup/user.slice/cpu.max": "max 100000\n",
    "sys/fs/cgroup/user.slice/cpuset.cpus.partition": "member\n",
    "sys/kernel/sched_ext/state": "disabled\n",
}


def kinds(root: Path, changes: Mapping[str, str]) -> list[str]:
    return [fact.kind for fact in read_facts(write_tree(root, {**QUIET, **changes}))]


def test_a_quiet_host_has_nothing_to_say(tmp_path: Path) -> None:
    assert kinds(tmp_path, {}) == []


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"proc/cpuinfo": "flags : fpu hypervisor sse\n"}, "steal"),
        ({"proc/stat": "cpu  900 0 0 0 0 0 0 99\ncpu0 900 0 0 0 0 0 0 99\n"}, "steal"),
        (
            {"sys/kernel/sched_ext/state": "enabled\n", "sys/kernel/sched_ext/root/ops": "lavd\n"},
            "sched-ext",
        ),
        (
            {
                "sys/fs/cgroup/rt.slice/cpuset.cpus.partition": "isolated\n",
                "sys/fs/cgroup/rt.slice/cpuset.cpus": "2-3\n",
            },
            "cpuset-partition",
        ),
        (
            {
                "sys/fs/cgroup/cpuset/machine/cpuset.cpu_exclusive": "1\n",
                "sys/fs/cgroup/cpuset/machine/cpuset.cpus": "2-3\n",
            },
            "cpuset-partition",
        ),
        ({"sys/fs/cgroup/user.slice/cpu.max": "150000 100000\n"}, "cpu-limit"),
        ({"sys/fs/cgroup/cpu.max": "50000 100000\n"}, "cpu-limit"),
        (
            {
                "proc/self/cgroup": "4:cpuacct,cpu:/box\n0::/\n",
                "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us": "50000\n",
                "sys/fs/cgroup/cpu/box/cpu.cfs_period_us": "100000\n",
            },
            "cpu-limit",
        ),
        ({"proc/self/status": "Cpus_allowed_list:\t0,2\n"}, "own-affinity"),
        (
            {"run/numad.pid": "77\n", "proc/77/comm": "numad\n", "proc/77/cmdline": "numad\0"},
            "numad",
        ),
    ],
)
def test_each_thing_is_noticed(tmp_path: Path, changes: Mapping[str, str], kind: str) -> None:
    assert kinds(tmp_path, changes) == [kind]


@pytest.mark.parametrize(
    "changes",
    [
        {"sys/fs/cgroup/cpuset/cpuset.cpu_exclusive": "1\n"},
        {"sys/fs/cgroup/rt.slice/cpuset.cpus.partition": "isolated invalid (no parent)\n"},
        {"run/numad.pid": "77\n", "proc/77/comm": "other\n"},
        {"run/numad.pid": "77\n", "proc/77/comm": "numad\n", "proc/77/cmdline": "numad\0-S\0000\0"},
    ],
)
def test_what_only_looks_like_it_is_not(tmp_path: Path, changes: Mapping[str, str]) -> None:
    assert kinds(tmp_path, changes) == []


def test_texts_name_the_figures(tmp_path: Path) -> None:
    changes = {
        "sys/fs/cgroup/a/cpuset.cpus.partition": "root\n",
        "sys/fs/cgroup/a/cpuset.cpus": "2-3\n",
        "sys/fs/cgroup/cpu.max": "50000 100000\n",
    }
    partition, limit = read_facts(write_tree(tmp_path, {**QUIET, **changes}))
    assert "a has CPUs 2-3" in partition.text
    assert "0.50 CPUs" in limit.text
