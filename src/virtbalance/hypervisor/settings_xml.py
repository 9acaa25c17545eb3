"""The owner's wishes for a guest, kept in its libvirt metadata.

For example ``<vb:guest xmlns:vb="urn:virt-balance:guest:1" weight="2" minimum="512 MiB"
maximum="2 GiB" swap="yes" exclude="cpu memory"/>``. What is not said has its default; a mistake
costs the attribute it is in, never the others, so that a typing error in ``weight`` can't undo
``exclude``.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from xml.etree.ElementTree import Element
from xml.sax.saxutils import quoteattr

from virtbalance.hypervisor.xml_tree import size_kib
from virtbalance.model.guest import GuestSettings, RoleName, checked_weight

NAMESPACE = "urn:virt-balance:guest:1"

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")


def read_settings(element: Element | None) -> tuple[GuestSettings, tuple[str, ...]]:
    """Return the settings in our metadata element and what is wrong with it, if anything."""
    if element is None:
        return GuestSettings(), ()
    values: dict[str, object] = {}
    mistakes = []
    for name, text in element.attrib.items():
        if name not in _READERS:
            mistakes.append(f"unknown attribute {name!r}")
            continue
        field, read = _READERS[name]
        try:
            values[field] = read(text)
        except ValueError as error:
            mistakes.append(f"{name}={text!r}: {error}")
    settings = GuestSettings(**values)  # type: ignore[arg-type]  # the table pairs fields and types
    if (
        settings.minimum_kib is not None
        and settings.maximum_kib is not None
        and settings.minimum_kib > settings.maximum_kib
    ):
        mistakes.append("minimum is above maximum: both ignored")
        settings = replace(settings, minimum_kib=None, maximum_kib=None)
    return settings, tuple(mistakes)


def write_settings(settings: GuestSettings) -> str | None:
    """Return the metadata element for these settings, ``None`` where all are defaults."""
    attributes: dict[str, str] = {}
    if settings.weight != GuestSettings().weight:
        attributes["weight"] = f"{settings.weight:g}"
    if settings.minimum_kib is not None:
        attributes["minimum"] = _size(settings.minimum_kib)
    if settings.maximum_kib is not None:
        attributes["maximum"] = _size(settings.maximum_kib)
    if settings.swap is not None:
        attributes["swap"] = "yes" if settings.swap else "no"
    if settings.exclude:
        attributes["exclude"] = " ".join(sorted(settings.exclude))
    if settings.revision:
        attributes["set"] = settings.revision
    if not attributes:
        return None
    return "<guest " + " ".join(f"{k}={quoteattr(v)}" for k, v in attributes.items()) + "/>"


def _weight(text: str) -> float:
    return checked_weight(float(text))


def _size_kib(text: str) -> int:
    found = _SIZE.fullmatch(text.strip())
    if found is None or (kib := size_kib(found[1], found[2] or "KiB")) == 0:
        raise ValueError("must be a size above 0, such as 512 MiB")
    return kib


def _yes_or_no(text: str) -> bool:
    if text not in ("yes", "no"):
        raise ValueError("must be yes or no")
    return text == "yes"


def _roles(text: str) -> frozenset[RoleName]:
    return frozenset(RoleName(word) for word in text.replace(",", " ").split())


def _size(kib: int) -> str:
    for unit, factor in (("GiB", 1024 * 1024), ("MiB", 1024)):
        if kib % factor == 0:
            return f"{kib // factor} {unit}"
    return f"{kib} KiB"


_READERS: Mapping[str, tuple[str, Callable[[str], object]]] = {
    "weight": ("weight", _weight),
    "minimum": ("minimum_kib", _size_kib),
    "maximum": ("maximum_kib", _size_kib),
    "swap": ("swap", _yes_or_no),
    "exclude": ("exclude", _roles),
    "set": ("revision", str),
}
