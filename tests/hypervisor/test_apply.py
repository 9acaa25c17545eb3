"""Carrying actions out: one outcome each, never an exception, never longer than allowed."""

import threading
import time
from collections.abc import Iterable

import libvirt
import pytest

from tests.hypervisor.fakes import UUID, FakeLevers, FakeLibvirtError, guest
from virtbalance.hypervisor.apply import Applier
from virtbalance.model.guest import VcpuKey
from virtbalance.model.plan import Action, Pin, Reason, Resize, SetStatsPeriod
from virtbalance.model.tick import Outcome, Status
from virtbalance.model.topology import Pcpu, Topology, flat_topology

pytestmark = pytest.mark.libvirt

OTHER = "77777777-0000-0000-0000-000000000000"
WHY = Reason("test", "test")


def pin(cpus: Iterable[int], vcpu: int = 0, uuid: str = UUID) -> Pin:
    return Pin(VcpuKey(uuid, vcpu), frozenset(cpus), WHY)


def resize(kib: int, uuid: str = UUID) -> Resize:
    return Resize(uuid, kib, WHY)


class Bench:
    """An applier with fake levers and two guests."""

    def __init__(self) -> None:
        self.levers = FakeLevers()
        self.guests = {uuid: guest(uuid) for uuid in (UUID, OTHER)}
        self.hung: set[str] = set()
        self.read_back: dict[VcpuKey, frozenset[int] | Exception] = {}
        self.applier = Applier(
            self.levers, self.guests.get, self._read_affinity, self.hung.__contains__
        )

    def apply(
        self, *actions: Action, topology: Topology | None = None, deadline_s: float = 5.0
    ) -> tuple[Outcome, ...]:
        return self.applier.apply(actions, topology or flat_topology(4), deadline_s)

    def one(self, action: Action, topology: Topology | None = None) -> Outcome:
        (outcome,) = self.apply(action, topology=topology)
        return outcome

    def _read_affinity(self, key: VcpuKey) -> frozenset[int]:
        found = self.read_back.get(key, self.levers.affinities.get((key.uuid, key.vcpu)))
        if isinstance(found, Exception):
            raise found
        assert found is not None
        return found


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_each_action_is_one_call_in_order(bench: Bench) -> None:
    outcomes = bench.apply(
        pin({2}), resize(500_000, OTHER), SetStatsPeriod(UUID, 2, WHY), pin({0, 3}, vcpu=1)
    )
    assert [outcome.status for outcome in outcomes] == [Status.DONE] * 4
    assert all(outcome.took_ns > 0 and outcome.text == "" for outcome in outcomes)
    assert bench.levers.calls == [
        (UUID, "pin", 0, [False, False, True, False]),
        (OTHER, "resize", 500_000),
        (UUID, "period", 2),
        (UUID, "pin", 1, [True, False, False, True]),
    ]


def test_the_mask_has_the_length_of_the_host_map(bench: Bench) -> None:
    bench.one(pin({1}), Topology((Pcpu(1, 1, 1, 0), Pcpu(70, 70, 70, 0)), map_length=128))
    assert len(bench.levers.calls[0][3]) == 128  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("action", "text"),
    [
        (pin({1, 4}), "the host has no CPU 4"),
        (pin({3}), "the mask holds no CPU that is online"),
        (pin(()), "the mask holds no CPU that is online"),
        (resize(1_000_001), "outside 1 to 1000000 KiB, its maximum"),
        (resize(0), "outside 1 to 1000000 KiB, its maximum"),
        (SetStatsPeriod(UUID, -1, WHY), "a period can't be negative"),
    ],
)
def test_what_makes_no_sense_is_refused_before_any_call(
    bench: Bench, action: Action, text: str
) -> None:
    pcpus = tuple(Pcpu(cpu, cpu, 0, 0, online=cpu != 3) for cpu in range(4))
    outcome = bench.one(action, Topology(pcpus))
    assert (outcome.status, outcome.text) == (Status.REFUSED, text)
    assert bench.levers.calls == []


def test_a_pin_that_reads_back_otherwise_is_different(bench: Bench) -> None:
    bench.read_back[VcpuKey(UUID, 0)] = frozenset({0, 1})
    outcome = bench.one(pin({2}))
    assert (outcome.status, outcome.text) == (Status.DIFFERENT, "reads 0-1 after the call")


def test_offline_cpus_count_on_neither_side(bench: Bench) -> None:
    pcpus = tuple(Pcpu(cpu, cpu, 0, 0, online=cpu != 3) for cpu in range(4))
    bench.read_back[VcpuKey(UUID, 0)] = frozenset({0, 1, 2})
    assert bench.one(pin(range(4)), Topology(pcpus)).status is Status.DONE


def test_a_guest_that_ends_before_it_is_read_back_is_gone(bench: Bench) -> None:
    bench.read_back[VcpuKey(UUID, 0)] = ProcessLookupError()
    assert bench.one(pin({2})).status is Status.GONE


def test_a_vcpu_that_is_unplugged_is_gone(bench: Bench) -> None:
    outcome = bench.one(pin({1}, vcpu=2))
    assert (outcome.status, outcome.text) == (Status.GONE, "it has no vCPU 2")
    assert bench.levers.calls == []


def test_an_unknown_guest_is_gone(bench: Bench) -> None:
    assert bench.one(resize(1000, "nobody")).status is Status.GONE


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (libvirt.VIR_ERR_NO_DOMAIN, Status.GONE),
        (libvirt.VIR_ERR_OPERATION_INVALID, Status.GONE),
        (libvirt.VIR_ERR_OPERATION_TIMEOUT, Status.BUSY),
        (libvirt.VIR_ERR_OPERATION_FAILED, Status.REFUSED),
        (libvirt.VIR_ERR_OPERATION_DENIED, Status.REFUSED),
        (libvirt.VIR_ERR_NO_CONNECT, Status.REFUSED),
    ],
)
def test_errors_are_outcomes_by_code(bench: Bench, code: int, status: Status) -> None:
    bench.levers.failing[UUID] = FakeLibvirtError(code)
    outcome = bench.one(resize(1000))
    assert (outcome.status, outcome.text) == (status, f"error {code}")


def test_a_guest_that_does_not_answer_statistics_is_not_changed(bench: Bench) -> None:
    bench.hung.add(UUID)
    assert bench.one(resize(1000)).status is Status.BUSY
    assert bench.levers.calls == []


def test_a_hung_guest_is_late_then_busy_and_does_not_delay_others(bench: Bench) -> None:
    release = bench.levers.hanging[UUID] = threading.Event()
    began_s = time.monotonic()
    late, done = bench.apply(resize(1000), resize(2000, OTHER), deadline_s=0.4)
    assert time.monotonic() - began_s < 0.6
    assert (late.status, done.status) == (Status.LATE, Status.DONE)
    busy, done = bench.apply(resize(3000), resize(4000, OTHER), deadline_s=0.4)
    assert (busy.status, done.status) == (Status.BUSY, Status.DONE)
    release.set()
    end_s = time.monotonic() + 5
    while bench.one(resize(5000)).status is not Status.DONE:
        assert time.monotonic() < end_s
    resizes = [call[2] for call in bench.levers.calls if call[0] == UUID]
    assert resizes == [1000, 5000], "what was busy was never sent"


def test_many_hung_guests_leave_time_for_the_last_one(bench: Bench) -> None:
    hung = [f"{number:08d}-0000" for number in range(12)]
    release = threading.Event()
    for uuid in hung:
        bench.guests[uuid] = guest(uuid)
        bench.levers.hanging[uuid] = release
    began_s = time.monotonic()
    outcomes = bench.apply(*(resize(1000, uuid) for uuid in hung), resize(9, UUID), deadline_s=2.0)
    assert time.monotonic() - began_s < 3.0  # a deadline for each would be 24 s
    assert outcomes[-1].status is Status.DONE
    assert {outcome.status for outcome in outcomes[:-1]} <= {Status.LATE, Status.BUSY}
    release.set()


def test_an_answer_that_comes_before_the_deadline_still_counts(bench: Bench) -> None:
    release = bench.levers.hanging[UUID] = threading.Event()
    threading.Timer(0.6, release.set).start()
    slow, quick = bench.apply(resize(1000), resize(2000, OTHER), deadline_s=1.0)
    assert (slow.status, quick.status) == (Status.DONE, Status.DONE)
    assert [call[0] for call in bench.levers.calls] == [OTHER, UUID]


def test_what_there_is_no_time_for_is_not_sent(bench: Bench) -> None:
    (outcome,) = bench.apply(resize(1000), deadline_s=0.0)
    assert outcome.status is Status.BUSY
    assert bench.levers.calls == []
