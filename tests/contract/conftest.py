"""Declares the mark of the contract suite."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(abilities): what a filling must be able to do")
