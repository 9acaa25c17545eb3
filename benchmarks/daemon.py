"""What the vCPU scheduler itself costs: processor time, memory, and whether it keeps its period.

Starts a private libvirtd (needs root) with real QEMU processes that have no operating system, and
the program as a user would start it. First at one sample a second (a decision every 4 s), where
processor time and resident memory are taken from /proc; then with a period of 0.1 s, where its own
ticks tell when each was made.

    python -m benchmarks.daemon [--guests 50] [--vcpus 4] [--seconds 60]
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import libvirt

from benchmarks.sampling import DOMAIN
from virtbalance.hypervisor.event_loop import ensure_event_loop
from virtbalance.lab.private_libvirtd import PrivateLibvirtd

CPU_GOAL_RATIO = 0.02
MEMORY_GOAL_MB = 80.0
SHORT_PERIOD_S = 0.1
LATE_S = 0.5 * SHORT_PERIOD_S
"""A tick further than this from its due time is not in its period."""
SHORT_TICKS = 300
SETTLE_S = 10.0
PROGRAM = Path(sys.executable).parent / "virt-balance"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--guests", type=int, default=50)
    parser.add_argument("--vcpus", type=int, default=4, help="of each guest")
    parser.add_argument("--seconds", type=float, default=60.0, help="to watch the program")
    parser.add_argument("--policy", default="balance", metavar="NAME|FILE.py:CLASS")
    options = parser.parse_args(arguments)
    ensure_event_loop()
    with PrivateLibvirtd(lambda text: print(text, file=sys.stderr)) as daemon:
        connection = libvirt.open(daemon.uri)
        for number in range(options.guests):
            connection.createXML(DOMAIN.format(number=number, vcpus=options.vcpus))
        time.sleep(SETTLE_S)
        words = ["-c", daemon.uri, "--policy", options.policy, "--json"]
        print(f"{options.guests} guests of {options.vcpus} vCPUs, {options.policy}")
        is_cheap = measure_cost(["4", *words], options.seconds)
        keeps_up = measure_period([str(SHORT_PERIOD_S), *words, "--ticks", str(SHORT_TICKS)])
        connection.close()
    return 0 if is_cheap and keeps_up else 1


def measure_cost(words: Sequence[str], seconds: float) -> bool:
    """Print what the program uses; return whether the goals are met."""
    with subprocess.Popen([PROGRAM, "cpu", *words], stdout=subprocess.DEVNULL) as program:
        time.sleep(SETTLE_S)
        began_s, before_s = time.monotonic(), processor_s(program.pid)
        time.sleep(seconds)
        ratio = (processor_s(program.pid) - before_s) / (time.monotonic() - began_s)
        resident_mb = memory_mb(program.pid)
        program.terminate()
    print(f"processor: {ratio:.2%} of one core (goal: {CPU_GOAL_RATIO:.0%})")
    print(f"resident memory: {resident_mb:.0f} MB (goal: {MEMORY_GOAL_MB:.0f})")
    return ratio < CPU_GOAL_RATIO and resident_mb < MEMORY_GOAL_MB


def measure_period(words: Sequence[str]) -> bool:
    """Print how well a short period is kept; return whether no tick was missed."""
    done = subprocess.run([PROGRAM, "cpu", *words], capture_output=True, text=True, check=True)
    ticks = [row for row in map(json.loads, done.stdout.splitlines()) if "tick" in row]
    gaps_s = [b["monotonic_s"] - a["monotonic_s"] for a, b in itertools.pairwise(ticks)]
    kinds = [str(event["kind"]) for tick in ticks for event in tick["events"]]
    skipped = kinds.count("overrun")
    late = sum(abs(gap_s - SHORT_PERIOD_S) > LATE_S for gap_s in gaps_s)
    spent_ms = [sum(tick["took_ms"].values()) for tick in ticks]
    print(
        f"period of {SHORT_PERIOD_S:g} s: {len(ticks)} ticks, {skipped} overruns, {late} out of "
        f"their period, median {statistics.median(gaps_s):.3f} s, worst {max(gaps_s):.3f} s; "
        f"median tick {statistics.median(spent_ms):.1f} ms"
    )
    return skipped == 0


def processor_s(pid: int) -> float:
    """Return the processor time a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(pid: int) -> float:
    """Return the resident memory of a process, in 10^6 bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    sys.exit(main())
