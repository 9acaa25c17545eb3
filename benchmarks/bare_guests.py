"""Real QEMU processes without an operating system, under the embedded driver: guests to look at."""

import contextlib
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from virtbalance.hypervisor.embedded import open_embedded
from virtbalance.lab.assets import cache_folder
from virtbalance.lab.embedded import embedded_root, embedded_uri, keep_capabilities


@dataclass(frozen=True)
class BareGuests:
    """What runs, and where."""

    root: Path
    uri: str
    connection: Any
    domains: list[Any]


@contextlib.contextmanager
def bare_guests(domains_xml: Iterable[str], settle_s: float) -> Iterator[BareGuests]:
    """Start guests, give them time to settle, and destroy them at the end of the block."""
    cache = cache_folder()
    root = embedded_root(lambda text: print(text, file=sys.stderr), cache)
    guests = BareGuests(root, embedded_uri(root), open_embedded(embedded_uri(root)), [])
    try:
        for xml in domains_xml:
            guests.domains.append(guests.connection.createXML(xml))
        keep_capabilities(root, cache)
        time.sleep(settle_s)
        yield guests
    finally:
        for domain in guests.domains:
            domain.destroy()
