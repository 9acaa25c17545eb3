"""The owner's wishes in a guest's metadata."""

from xml.etree.ElementTree import Element

import pytest

from virtbalance.hypervisor.settings_xml import read_settings, write_settings
from virtbalance.hypervisor.xml_tree import parse
from virtbalance.model.guest import GuestSettings, RoleName

MIB = 1024


def settings(**attributes: str) -> GuestSettings:
    found, mistakes = read_settings(Element("guest", attributes))
    assert mistakes == ()
    return found


def test_nothing_said() -> None:
    assert read_settings(None) == (GuestSettings(), ())
    assert settings() == GuestSettings()


def test_everything_said() -> None:
    said = settings(
        weight="2.5", minimum="512 MiB", maximum="2GiB", swap="yes", exclude="cpu memory"
    )
    both = frozenset({RoleName.CPU, RoleName.MEMORY})
    assert said == GuestSettings(2.5, 512 * MIB, 2048 * MIB, both, swap=True)
    assert settings(swap="no").swap is False


@pytest.mark.parametrize(
    ("text", "kib"),
    [("524288", 524288), ("0.5 GiB", 524288), ("1 MB", 977), ("64M", 65536), ("1000 k", 1000)],
)
def test_sizes(text: str, kib: int) -> None:
    assert settings(minimum=text).minimum_kib == kib


@pytest.mark.parametrize(
    "attributes",
    [
        {"weight": "0"},
        {"weight": "-1"},
        {"weight": "nan"},
        {"weight": "inf"},
        {"weight": "1e308"},
        {"weight": "0.0001"},
        {"weight": "heavy"},
        {"minimum": "much"},
        {"minimum": "5 apples"},
        {"minimum": "0"},
        {"maximum": "-1 GiB"},
        {"exclude": "gpu"},
        {"swap": "perhaps"},
        {"wieght": "2"},
    ],
)
def test_a_mistake_is_told_and_costs_only_its_attribute(attributes: dict[str, str]) -> None:
    kept = {"exclude": "memory"} if "exclude" not in attributes else {"weight": "3"}
    found, mistakes = read_settings(Element("guest", attributes | kept))
    assert found == settings(**kept)
    assert len(mistakes) == 1
    assert next(iter(attributes)) in mistakes[0]


def test_minimum_above_maximum() -> None:
    element = Element("guest", {"minimum": "2 GiB", "maximum": "1 GiB", "weight": "2"})
    assert read_settings(element) == (
        GuestSettings(weight=2.0),
        ("minimum is above maximum: both ignored",),
    )


@pytest.mark.parametrize(
    "wanted",
    [
        GuestSettings(weight=2.5, swap=False),
        GuestSettings(swap=True),
        GuestSettings(minimum_kib=512 * MIB, maximum_kib=3 * 1024 * MIB),
        GuestSettings(minimum_kib=1001, exclude=frozenset({RoleName.CPU})),
    ],
)
def test_written_settings_read_the_same(wanted: GuestSettings) -> None:
    xml = write_settings(wanted)
    assert xml is not None
    assert read_settings(parse(xml)) == (wanted, ())


def test_defaults_need_no_metadata() -> None:
    assert write_settings(GuestSettings()) is None
