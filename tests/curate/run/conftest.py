"""No test sees the command line of another."""

import pytest

from curate.run import overrides


@pytest.fixture(autouse=True)
def nothing_typed(monkeypatch):
    monkeypatch.setattr(overrides, "_arguments", [])
