"""Recorded loads: the packaged excerpt and a user's CSV."""

import gzip
from dataclasses import replace
from pathlib import Path

import pytest

from virtbalance.bench.building import build
from virtbalance.bench.library import find
from virtbalance.bench.runner import program_settings
from virtbalance.bench.schema import TraceTable
from virtbalance.bench.trace_guests import trace_guests
from virtbalance.bench.traces import DIRECTORY_VARIABLE, recorded
from virtbalance.control.config import ConfigError
from virtbalance.control.settings import CpuSettings
from virtbalance.simulation.workload import Trace


def test_the_packaged_excerpt() -> None:
    guests = recorded("excerpt", "cpu")
    assert len(guests) == 14
    assert {len(guest.values) for guest in guests} == {288}
    assert guests[0].vcpus == 8
    assert guests[0].values[:3] == pytest.approx((0.005, 0.014, 0.003))
    assert max(guests[0].values) == pytest.approx(1.04, abs=0.01)


def test_a_users_csv_with_and_without_gzip(tmp_path: Path) -> None:
    text = "guest,vcpus,maximum_mib,s0,s1,s2\nweb,2,4096,10,,30\ndb,1,2048,100,50,0\n"
    (tmp_path / "mine.csv").write_text(text)
    (tmp_path / "mine.csv.gz").write_bytes(gzip.compress(text.encode()))
    for name in ("mine.csv", "mine.csv.gz"):
        web, db = recorded(str(tmp_path / name), "cpu")
        assert web.values == pytest.approx((0.1, 0.1, 0.3))  # an empty cell repeats
        assert (web.vcpus, db.values[1]) == (2, 0.5)
    web, _ = recorded(str(tmp_path / "mine.csv"), "memory")
    assert (web.maximum_mib, web.values) == (4096, (10, 10, 30))


def test_mistakes_in_a_csv_are_named_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("guest,s0\na,1\nb,x\n")
    with pytest.raises(ConfigError, match=r"bad.csv:3: could not convert"):
        recorded(str(path), "cpu")
    with pytest.raises(ConfigError, match="No such file"):
        recorded(str(tmp_path / "gone.csv"), "cpu")


def test_a_public_trace_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DIRECTORY_VARIABLE, raising=False)
    recorded.cache_clear()
    with pytest.raises(ConfigError, match="not part of the package: name the directory"):
        recorded("planetlab", "cpu")


def test_guests_are_drawn_by_the_seed_and_scaled_to_the_load() -> None:
    (scenario,) = find(["p11-excerpt/0.85/4s"])
    drawn = trace_guests(scenario, 1)
    vcpus = [vcpu for guest in drawn.guests for vcpu in guest.vcpus]
    assert len(vcpus) == 64
    loads = [vcpu.workload for vcpu in vcpus]
    assert all(isinstance(load, Trace) for load in loads)
    mean = sum(sum(load.values) / len(load.values) for load in loads if isinstance(load, Trace))
    assert mean == pytest.approx(0.85 * 8, rel=0.01)
    assert drawn == trace_guests(scenario, 1)
    assert drawn != trace_guests(scenario, 2)
    assert 20 <= len(drawn.open_vcpus) <= 44  # half of them, by chance


def test_a_recorded_value_is_one_decision_interval() -> None:
    """Looked at, remembered, decided on and recorded at the spacing of the recorded values."""
    rows = find(["p11-*"])
    assert len(rows) == 12
    for scenario in rows:
        assert scenario.trace is not None
        settings = program_settings(scenario)
        assert isinstance(settings, CpuSettings)
        spacings = {
            scenario.trace.step_s,
            scenario.period_s,
            scenario.record_s,
            settings.demand.window_s,
            settings.demand.slot_s,
        }
        assert spacings == {4.0}
        assert scenario.measure_from_s == 12 * 4.0
        assert scenario.trace.open_ratio == 0.5


def test_a_memory_trace_makes_the_host(tmp_path: Path) -> None:
    path = tmp_path / "memory.csv"
    path.write_text("guest,maximum_mib,s0,s1\na,2048,500,1500\nb,4096,3000,1000\n")
    (plain,) = find(["s1"])
    trace = TraceTable(str(path), guests=2, host_ratio=0.5)
    host = build(replace(plain, guests=(), trace=trace), 0).host
    assert host.machine.memory_kib == (3072 + 1536) * 1024
