"""For all tests: a run that is ended ends its real guests, too."""

import signal

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Unwind on termination, such as by ``timeout``, as on an interrupt.

    What ``nohup`` and ``&`` have ignored is not inherited by the programs under test.
    """
    del config
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
