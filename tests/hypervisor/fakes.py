"""Stand-ins for libvirt's side: errors, levers, guests."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import libvirt

from virtbalance.hypervisor.guest_reading import Guest
from virtbalance.model.guest import GuestDefinition, GuestSettings, GuestState

if TYPE_CHECKING:
    from threading import Event

UUID = "6695eb01-f6a4-8304-79aa-97f2502e193f"


class FakeLibvirtError(libvirt.libvirtError):  # type: ignore[misc]
    """An error with the code a test wants."""

    def __init__(self, code: int, domain: int = libvirt.VIR_FROM_QEMU) -> None:
        Exception.__init__(self, f"error {code}")
        self.err = (code, domain, f"error {code}", 2, None, None, None, -1, -1)


def guest(uuid: str = UUID, *, maximum_kib: int = 1_000_000, vcpus: int = 2) -> Guest:
    return Guest(
        uuid=uuid,
        name=f"guest-{uuid[:4]}",
        domain_id=1,
        state=GuestState.RUNNING,
        settings=GuestSettings(),
        mistakes=(),
        definition=GuestDefinition(),
        maximum_kib=maximum_kib,
        current_kib=maximum_kib,
        vcpus=frozenset(range(vcpus)),
    )


class FakeLevers:
    """Notes every call; may fail or hang for one guest."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.affinities: dict[tuple[str, int], frozenset[int]] = {}
        self.failing: dict[str, FakeLibvirtError] = {}
        self.hanging: dict[str, Event] = {}

    @contextmanager
    def use(self) -> Iterator["FakeLevers"]:
        yield self

    def pin(self, uuid: str, vcpu: int, mask: Sequence[bool]) -> None:
        self._note(uuid, "pin", vcpu, list(mask))
        self.affinities[uuid, vcpu] = frozenset(cpu for cpu, on in enumerate(mask) if on)

    def resize(self, uuid: str, target_kib: int) -> None:
        self._note(uuid, "resize", target_kib)

    def set_stats_period(self, uuid: str, period_s: int) -> None:
        self._note(uuid, "period", period_s)

    def _note(self, uuid: str, *call: object) -> None:
        if (release := self.hanging.get(uuid)) is not None:
            release.wait(20)
        if (error := self.failing.get(uuid)) is not None:
            raise error
        self.calls.append((uuid, *call))


def open_below(folder: Path) -> list[str]:
    """What this process holds open in the folder.  Others' descriptors may come and go."""
    targets = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            targets.append(str(descriptor.readlink()))
    return [target for target in targets if target.startswith(f"{folder}/")]
