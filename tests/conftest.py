"""Each test begins as in a process in which no command was started, whatever the tests before it started."""

import pytest

from curate.run import overrides


@pytest.fixture(autouse=True)
def without_command():
    """Take back the command line that a test has left."""
    lists = overrides._arguments, overrides._section
    before = [list(each) for each in lists]
    yield
    for each, content in zip(lists, before, strict=True):
        each[:] = content
