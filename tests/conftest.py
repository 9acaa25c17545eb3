"""For all tests: a run that is ended ends its real guests, too; no test fails for being slow."""

import signal

import hypothesis
import pytest

hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def pytest_configure(config: pytest.Config) -> None:
    """Unwind on termination, such as by ``timeout``, as on an interrupt.

    What ``nohup`` and ``&`` have ignored is not inherited by the programs under test.
    """
    del config
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
