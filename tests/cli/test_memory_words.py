"""What ``explain`` and ``status`` say of memory, from a last tick on a simulated host."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.control.programs import memory_role, run
from virtbalance.model.guest import GuestDefinition, GuestSettings
from virtbalance.model.plan import Reason, SetStatsPeriod
from virtbalance.model.reservation import Reservation
from virtbalance.simulation.build import host, uuid
from virtbalance.simulation.guest import SimMemory
from virtbalance.simulation.host import SimulatedHost
from virtbalance.simulation.machine import SimMachine
from virtbalance.simulation.want import MIB, Constant
from virtbalance.telemetry.last_tick import LastTick
from virtbalance.ui.explain import explain_lines
from virtbalance.ui.status import status_lines

GIB = 1024 * MIB
NEEDY = SimMemory(maximum_kib=4 * GIB, balloon_kib=1 * GIB, want=Constant(3000.0 * MIB))
FULL = GuestDefinition(stats_period_s=1, autodeflate=True, free_page_reporting=True)


def documented(
    simulated: SimulatedHost, directory: Path, ticks: int, *reservations: Reservation
) -> dict[str, Any]:
    """Run the coordinator; return what it leaves for other programs."""
    observer = LastTick(directory / "memory.json", "sim", dry_run=False)
    role = memory_role(reservations=lambda: reservations)
    run(simulated, role, directory, ticks, watch=observer.tick)
    document = json.loads((directory / "memory.json").read_text())
    assert isinstance(document, dict)
    return {"host": "sim", "role": "memory", "running": True, "age_s": 0.0, **document}


def explained(document: dict[str, Any], number: int) -> list[str]:
    changes = document["last_changes"].get(uuid(number), {})
    return explain_lines(document["last_tick"], uuid(number), changes)


def test_explain_tells_claims_tier_share_limit_and_the_last_steps(tmp_path: Path) -> None:
    simulated = host(SimMachine(memory_kib=6 * GIB), guests=2, memory=NEEDY)
    simulated.apply([SetStatsPeriod(uuid(0), 0, Reason("test", "off"))], 1.0)
    lines = explained(documented(simulated, tmp_path, 60), 0)
    text = "\n".join(lines)
    assert "  claims: 409 at least, " in text
    assert "tier: not every hard need fits, cut at " in text
    assert "MiB per weight; bound by its share" in text
    (wish,) = [line for line in lines if line.startswith("  wish: ")]
    assert wish.endswith("its share by weight")
    steps = [line for line in lines if line.startswith(("    last change, ", "    before, "))]
    assert 2 <= len([line for line in steps if ": set to " in line]) <= 5
    assert "made to report every 1 s: the balloon reports nothing" in steps[-1]


def test_explain_tells_what_speaks_for_more(tmp_path: Path) -> None:
    starved = replace(NEEDY, maximum_kib=8 * GIB, want=Constant(7000.0 * MIB), swap_kib=8 * GIB)
    simulated = host(SimMachine(memory_kib=6 * GIB), guests=1, memory=starved)
    text = "\n".join(explained(documented(simulated, tmp_path, 40), 0))
    assert "uses all it has, so how much more it wants is a guess" in text
    assert "has swap" in text


def test_explain_of_a_young_guest_says_that_it_may_only_grow(tmp_path: Path) -> None:
    simulated = host(SimMachine(memory_kib=6 * GIB), guests=1, memory=NEEDY)
    simulated.at(8.5, lambda: simulated.restart(uuid(0)))
    text = "\n".join(explained(documented(simulated, tmp_path, 12), 0))
    assert "may only grow: it started less than 30 s ago" in text


def test_status_tells_which_balloon_options_are_off_and_how_to_turn_them_on(
    tmp_path: Path,
) -> None:
    simulated = host(SimMachine(memory_kib=16 * GIB), guests=3, memory=NEEDY)
    for number, definition in enumerate(
        [FULL, replace(FULL, autodeflate=False), GuestDefinition(stats_period_s=1)]
    ):
        described = simulated.guests[uuid(number)].described
        simulated.change(uuid(number), replace(described, definition=definition))
    lines = status_lines(documented(simulated, tmp_path, 3))
    assert "  autodeflate is off: g1, g2" in lines
    assert "  freePageReporting is off: g2" in lines
    (edit,) = [line for line in lines if "virsh edit" in line]
    assert edit == (
        "    on from its next start: EDITOR=\"sed -i \\\"s/<memballoon model='virtio'/& "
        "autodeflate='on' freePageReporting='on'/\\\"\" virsh edit GUEST"
    )


@pytest.mark.libvirt
def test_the_line_that_turns_them_on_does(tmp_path: Path) -> None:
    definition = tmp_path / "web.xml"
    definition.write_text(
        "<domain type='test'><name>web</name><memory>65536</memory><os><type>hvm</type></os>"
        "<devices><memballoon model='virtio'/></devices></domain>"
    )
    simulated = host(SimMachine(memory_kib=16 * GIB), guests=1, memory=NEEDY)
    (edit,) = [line for line in status_lines(documented(simulated, tmp_path, 3)) if "edit" in line]
    command = edit.partition(": ")[2].replace(
        "virsh edit GUEST",
        f"virsh -c test:///default 'define {definition}; edit web; dumpxml --inactive web'",
    )
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert "<memballoon model='virtio' autodeflate='on' freePageReporting='on'/>" in done.stdout


def test_status_is_silent_where_all_is_on(tmp_path: Path) -> None:
    simulated = host(SimMachine(memory_kib=16 * GIB), guests=1, memory=NEEDY)
    described = simulated.guests[uuid(0)].described
    simulated.change(uuid(0), replace(described, definition=FULL))
    assert "is off" not in "\n".join(status_lines(documented(simulated, tmp_path, 3)))


def test_status_tells_what_is_reserved(tmp_path: Path) -> None:
    simulated = host(SimMachine(memory_kib=16 * GIB), guests=1, memory=NEEDY)
    ours = Reservation(2 * GIB, frozenset({uuid(0)}))
    lines = status_lines(documented(simulated, tmp_path, 40, ours))
    assert "  reserved: 2048 MiB for guests to come, 2048 free" in lines


def test_status_tells_minima_that_do_not_fit_and_budgets_inside(tmp_path: Path) -> None:
    promised = GuestSettings(minimum_kib=3 * GIB)
    simulated = host(SimMachine(memory_kib=6 * GIB), guests=2, memory=NEEDY)
    for number in range(2):
        described = simulated.guests[uuid(number)].described
        simulated.change(uuid(number), replace(described, settings=promised))
    document = documented(simulated, tmp_path, 3)
    part = {"name": "NUMA node 1", "budget_kib": 900 * MIB, "guests": [uuid(0)]}
    document["last_tick"]["host"]["compartments"] = [part]
    lines = status_lines(document)
    short_mib = document["last_tick"]["host"]["shortfall_kib"] // MIB
    assert short_mib > 1000
    assert f"  the minima exceed the budget by {short_mib} MiB" in lines
    assert "  NUMA node 1: budget 900 MiB" in lines
