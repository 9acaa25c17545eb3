"""How much longer than bare Python a short command takes, in one run.

    .venv/bin/python benchmarks/startup.py

Both are started in turn, so that whatever else the machine does meets both alike.
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

ROUNDS = 20
BIN = Path(sys.executable).parent
COMMANDS = {
    "virt-balance --help": [str(BIN / "virt-balance"), "--help"],
    "virt-balance status": [str(BIN / "virt-balance"), "status"],
    "vcpu_scheduler --help": [str(BIN / "vcpu_scheduler"), "--help"],
}


def main() -> None:
    bare = [sys.executable, "-c", "pass"]
    seconds: dict[str, list[float]] = {name: [] for name in ("bare python", *COMMANDS)}
    for _ in range(ROUNDS):
        seconds["bare python"].append(_time_s(bare))
        for name, command in COMMANDS.items():
            seconds[name].append(_time_s(command))
    base_s = statistics.median(seconds["bare python"])
    print(f"{'command':24} {'median ms':>9} {'over bare':>9} {'ratio':>6}")
    for name, measured in seconds.items():
        median_s = statistics.median(measured)
        over_ms = (median_s - base_s) * 1e3
        print(f"{name:24} {median_s * 1e3:9.1f} {over_ms:+9.1f} {median_s / base_s:6.2f}")


def _time_s(command: list[str]) -> float:
    start_s = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return time.perf_counter() - start_s


if __name__ == "__main__":
    main()
