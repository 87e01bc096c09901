"""Curations without the charts of their reports, which take a third of the time of a small one."""

import pytest
from markupsafe import Markup

from curate.report import page


@pytest.fixture(autouse=True)
def without_charts(monkeypatch):
    """The charts are tested with the reports."""
    monkeypatch.setattr(page, "svg", lambda drawing: Markup("<svg></svg>"))
