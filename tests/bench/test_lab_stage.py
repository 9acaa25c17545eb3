"""What a scenario's guests are on the lab, before any is started."""

import os
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from virtbalance.bench.lab_stage import check_fits, spec_of
from virtbalance.bench.library import find
from virtbalance.bench.schema import ArrivalsLoad, HostTable, LoopLoad
from virtbalance.control.config import ConfigError
from virtbalance.hypervisor.settings_xml import read_settings


def test_a_guest_keeps_its_sizes_pins_and_wishes() -> None:
    (scenario,) = find(["m1/small/1s"])
    spec = spec_of(replace(scenario.guests[0], weight=2.0, pin=(0,)))
    assert (spec.current_mib, spec.maximum_mib, spec.pins) == (256, 768, (frozenset({0}),))
    settings, problems = read_settings(ET.fromstring(spec.metadata))
    assert problems == ()
    assert (settings.weight, settings.minimum_kib) == (2.0, 160 * 1024)


def test_what_does_not_fit_is_refused_with_a_reason() -> None:
    (scenario,) = find(["c1/4-on-2/1s"])
    here = replace(scenario, host=HostTable(pcpus=len(os.sched_getaffinity(0))))
    check_fits(here)
    arrivals = replace(here.guests[0], load=ArrivalsLoad(0.5))
    for wrong, why in (
        (replace(here, host=HostTable(pcpus=999)), "it has 999 pCPUs"),
        (replace(here, guests=here.guests * 999), "vCPUs are too many"),
        (replace(here, guests=(arrivals,)), "no such load for g0"),
        (replace(here, host=replace(here.host, other_work=LoopLoad(0.1))), "own work"),
        (replace(here, guests=(replace(here.guests[0], starts_s=5.0),)), "start or end on the way"),
    ):
        with pytest.raises(ConfigError, match=why):
            check_fits(wrong)
