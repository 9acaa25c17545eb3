"""Reading libvirt's XML: parse, and sizes with their unit."""

import xml.etree.ElementTree as ET

_BYTES_PER_UNIT: dict[str, int] = {
    "b": 1,
    "bytes": 1,
    **{unit: 1024**power for power, unit in enumerate(("k", "m", "g", "t"), 1)},
    **{f"{unit}ib": 1024**power for power, unit in enumerate(("k", "m", "g", "t"), 1)},
    **{f"{unit}b": 1000**power for power, unit in enumerate(("k", "m", "g", "t"), 1)},
}


def parse(xml: str) -> ET.Element:
    """Parse XML that libvirt wrote (it has checked what users gave it)."""
    return ET.fromstring(xml)  # noqa: S314


def size_kib(amount: str, unit: str = "KiB") -> int:
    """Convert an amount with a unit as libvirt understands it. ValueError if it is neither."""
    try:
        return round(float(amount) * _BYTES_PER_UNIT[unit.strip().lower()] / 1024)
    except KeyError:
        raise ValueError(f"unknown unit {unit!r}") from None


def element_kib(element: ET.Element | None) -> int:
    """Return the size an element like ``<memory unit='KiB'>1024</memory>`` holds; 0 if missing."""
    if element is None or not element.text:
        return 0
    return size_kib(element.text, element.get("unit", "KiB"))
