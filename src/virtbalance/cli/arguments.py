"""Parsing shared by the sub-commands: one-line errors, periods, sizes, the connection."""

import argparse
import math
import re
from typing import NoReturn

from virtbalance.model.guest import checked_weight

_UNITS_KIB = {"": 1, "KIB": 1, "K": 1, "MIB": 1024, "M": 1024, "GIB": 1024**2, "G": 1024**2}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong in one line and leaves the usage to ``--help``."""

    def error(self, message: str) -> NoReturn:
        """Exit with code 2."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def period_s(text: str) -> float:
    """Parse a period: seconds, fractions allowed, at least 0.01."""
    value = _finite(text)
    if not value >= 0.01:
        raise argparse.ArgumentTypeError(f"must be seconds, at least 0.01, not {text!r}")
    return value


def seconds(text: str) -> float:
    """Parse a time: seconds, fractions allowed, not negative."""
    value = _finite(text)
    if not value >= 0:
        raise argparse.ArgumentTypeError(f"must be seconds, not {text!r}")
    return value


def count(text: str) -> int:
    """Parse a number of ticks or the like: at least 1."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number, at least 1, not {text!r}")
    return int(text)


def size_kib(text: str) -> int:
    """Parse a size such as ``512MiB`` or ``2G``; KiB without a unit."""
    match = _SIZE.fullmatch(text)
    if match is None or match[2].upper() not in _UNITS_KIB:
        raise argparse.ArgumentTypeError(f"must be a size such as 512MiB or 2GiB, not {text!r}")
    return round(float(match[1]) * _UNITS_KIB[match[2].upper()])


def weight(text: str) -> float:
    """Parse a weight that an owner can give."""
    try:
        return checked_weight(_finite(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}, not {text!r}") from None


def _finite(text: str) -> float:
    """Return the number in a text; NaN, which is no less and no more than anything, if none is."""
    try:
        value = float(text)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def add_connection(parser: argparse.ArgumentParser) -> None:
    """Add ``-c/--connect``."""
    parser.add_argument(
        "-c",
        "--connect",
        metavar="URI",
        dest="uri",
        help="libvirt connection (default: LIBVIRT_DEFAULT_URI, else libvirt's own)",
    )
