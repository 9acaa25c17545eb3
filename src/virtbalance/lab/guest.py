"""A running guest of the lab: its load, its report, its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from virtbalance.lab.errors import LabError
from virtbalance.lab.reports import Report, parse_report

if TYPE_CHECKING:
    from pathlib import Path
    from uuid import UUID

    import libvirt

    from virtbalance.lab.channel import Channel
    from virtbalance.lab.link import Link
    from virtbalance.lab.loads import CpuLoad

FLOOR_MIB = 48
"""A memory load "to its limit" ends when the guest has less than this available."""


class Guest:
    """Handle of a guest. What asks the guest raises LabError if it does not answer."""

    def __init__(self, name: str, uuid: UUID, link: Link, channel: Channel, pid_file: Path) -> None:
        self.name = name
        self.uuid = uuid
        self._link = link
        self._channel = channel
        self._pid_file = pid_file

    @property
    def domain(self) -> libvirt.virDomain:
        """The guest's domain on the lab's connection; libvirtError if it is gone."""
        return self._link.domain(self.uuid)

    @property
    def pid(self) -> int:
        """The number of the guest's QEMU process; LabError if it is gone."""
        try:
            return int(self._pid_file.read_text("ascii"))
        except (OSError, ValueError) as error:
            raise LabError(f"guest {self.name} has no process: {error}") from error

    def command(self, words: str, timeout_s: float = 30.0) -> dict[str, Any]:
        """Send a command of the program's own language (guest/main.c); return its answer."""
        return self._channel.command(words, timeout_s)

    def report(self, timeout_s: float = 30.0) -> Report:
        """Ask what the guest got done so far."""
        return parse_report(self.command("report", timeout_s))

    def load_cpu(self, cpu: int | None, load: CpuLoad) -> None:
        """Run a load on one vCPU, or on all for None; it replaces what ran there.

        A hot-plugged vCPU is brought online first.
        """
        self.command(f"cpu {'all' if cpu is None else cpu} {load.words()}")

    def allocate(
        self,
        limit_mib: float | None,
        rate_mib_s: float,
        *,
        floor_mib: float = FLOOR_MIB,
        then_free: bool = False,
    ) -> None:
        """Take and touch memory, 4 KiB a step, at a rate, up to a limit.

        Ends at the limit (None: no limit of its own) or when the guest's MemAvailable falls below
        the floor; then holds what it has, or with `then_free` frees it all. While it runs, a
        second call changes limit and rate.
        """
        limit_kib = 0 if limit_mib is None else max(4, round(limit_mib * 1024))
        self.command(
            f"allocate {limit_kib} {max(1, round(rate_mib_s * 1024))} {round(floor_mib * 1024)}"
            f" {'free' if then_free else 'hold'}"
        )

    def hold(self) -> None:
        """Stop taking memory, keep what is held."""
        self.command("hold")

    def free(self) -> None:
        """Give all memory back."""
        self.command("free")

    def disconnect(self) -> None:
        """Let go of the channel, so that another client can use it; the next command reopens it."""
        self._channel.close()

    def stop(self) -> None:
        """End the guest at once and forget its definition; no error if it is gone already."""
        import libvirt

        try:
            end(self.domain)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise LabError(f"guest {self.name} can't be stopped: {error}") from error
        self._channel.close()


def end(domain: libvirt.virDomain) -> None:
    """End a domain and forget its definition; libvirtError if it is not there."""
    import libvirt

    persistent = domain.isPersistent()
    try:
        domain.destroy()
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID:
            raise
    if persistent:
        domain.undefine()
