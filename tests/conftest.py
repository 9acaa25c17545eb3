"""For all tests: a run that is ended ends its real guests, too."""

import signal

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Unwind on termination, such as by ``timeout``, as on an interrupt."""
    del config
    signal.signal(signal.SIGTERM, signal.default_int_handler)
