"""How long one look at all vCPUs takes: our local path, and what libvirt offers for it.

Starts real QEMU processes without an operating system under the embedded driver (no /dev/kvm
needed), lets them settle, and takes every figure in turn, round after round, so that the noise of
the machine falls on all of them alike. Figures are the medians of the rounds.

    python -m benchmarks.sampling [--guests 24] [--vcpus 4] [--rounds 15]
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import libvirt

from benchmarks.bare_guests import bare_guests
from virtbalance.hypervisor import LibvirtHypervisor, connect
from virtbalance.hypervisor.processes import find_vcpu_threads
from virtbalance.model.snapshot import Scope

GOAL_RATIO = 50.0
SETTLE_S = 8.0
OURS_A_ROUND = 20  # ours is so short that one alone would be lost in the noise
BARE = "bare loop of the same preads"
OURS = "our sample"
BULK = "virConnectGetAllDomainStats"
EACH = "virDomainGetVcpus, guest by guest"
DOMAIN = """
<domain type='qemu'><name>sampling-{number}</name><memory unit='MiB'>32</memory>
<vcpu>{vcpus}</vcpu><os><type arch='x86_64' machine='q35'>hvm</type></os>
<features><acpi/></features><cpu mode='maximum'/>
<devices><controller type='usb' model='none'/></devices></domain>"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    print(f"starting {options.guests} guests of {options.vcpus} vCPUs", file=sys.stderr)
    xml = (DOMAIN.format(number=n, vcpus=options.vcpus) for n in range(options.guests))
    with bare_guests(xml, SETTLE_S) as bare:
        hypervisor = connect(bare.uri)
        medians = measure(hypervisor, bare.connection, bare.domains, bare.root, options.rounds)
        hypervisor.close()
    return report(medians, options.guests * options.vcpus)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--guests", type=int, default=24)
    parser.add_argument("--vcpus", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=15)
    return parser.parse_args(arguments)


def measure(
    hypervisor: LibvirtHypervisor,
    connection: Any,
    domains: Sequence[Any],
    root: Path,
    rounds: int,
) -> dict[str, float]:
    """Return the median time of each contender in milliseconds."""
    descriptors = open_all(root, [domain.name() for domain in domains])
    flags = libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT
    contenders: dict[str, tuple[Callable[[], object], int]] = {
        BARE: (lambda: [os.pread(descriptor, 64, 0) for descriptor in descriptors], OURS_A_ROUND),
        OURS: (lambda: hypervisor.sample(Scope.CPU, 1.0), OURS_A_ROUND),
        BULK: (lambda: connection.getAllDomainStats(libvirt.VIR_DOMAIN_STATS_VCPU, flags), 1),
        EACH: (lambda: [domain.vcpus() for domain in domains], 1),
    }
    seen = sum(len(guest.vcpus) for guest in hypervisor.sample(Scope.CPU, 1.0).guests)
    assert seen == len(descriptors), "we look at the same threads"
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, (look, repeats) in contenders.items():
            times[name] += [time_ms(look) for _ in range(repeats)]
    for descriptor in descriptors:
        os.close(descriptor)
    return {name: statistics.median(taken) for name, taken in times.items()}


def time_ms(look: Callable[[], object]) -> float:
    began = time.perf_counter()
    look()
    return (time.perf_counter() - began) * 1000


def open_all(root: Path, names: Sequence[str]) -> list[int]:
    """Open the schedstat file of every vCPU thread, by the pid files under the driver's root."""
    descriptors: list[int] = []
    for name in names:
        pid = int((root / "run/qemu" / f"{name}.pid").read_text())
        descriptors += [
            os.open(f"/proc/{pid}/task/{thread}/schedstat", os.O_RDONLY)
            for thread in find_vcpu_threads(pid, Path("/proc")).values()
        ]
    return descriptors


def report(medians: dict[str, float], vcpus: int) -> int:
    """Print the table; return 1 if the goal is missed."""
    ours = medians[OURS]
    print(f"{vcpus} vCPUs, median times")
    for name, milliseconds in medians.items():
        print(f"{name:36} {milliseconds:9.3f} ms  {milliseconds / ours:8.1f} x ours")
    ratio = medians[BULK] / ours
    print(f"faster than the bulk call: {ratio:.0f} times (goal: {GOAL_RATIO:.0f})")
    return 0 if ratio >= GOAL_RATIO else 1


if __name__ == "__main__":
    sys.exit(main())
