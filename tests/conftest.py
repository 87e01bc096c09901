"""For all tests: how many cases of a test `make test` takes, and no command line that another test has left."""

from collections import defaultdict

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


@pytest.hookimpl(tryfirst=True)  # before pytest selects by marks
def pytest_collection_modifyitems(items):
    """Mark cases as slow beyond those that ``quick_cases(count)`` leaves to `make test`."""
    cases = defaultdict(list)
    for item in items:
        if item.get_closest_marker("quick_cases") and not item.get_closest_marker("slow"):
            cases[item.parent, item.originalname].append(item)
    for of_test in cases.values():
        (count,) = of_test[0].get_closest_marker("quick_cases").args
        quick = spread(count, len(of_test))
        for place, item in enumerate(of_test):
            if place not in quick:
                item.add_marker(pytest.mark.slow)


def spread(count, length):
    """``count`` of ``length`` places, evenly apart, the first and, if there are two, the last among them.

    >>> sorted(spread(1, 5)), sorted(spread(3, 8)), sorted(spread(9, 2))
    ([0], [0, 4, 7], [0, 1])
    """
    last = max(1, count - 1)
    return {round(number * (length - 1) / last) for number in range(count)}
