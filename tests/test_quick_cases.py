"""Which cases of a test `make test` takes."""

from itertools import pairwise

import pytest

from tests.conftest import pytest_collection_modifyitems, spread


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9])
def test_so_many_evenly_apart(count):
    for length in range(1, 40):
        places = sorted(spread(count, length))
        assert len(places) == min(count, length)
        assert places[0] == 0
        assert count == 1 or places[-1] == length - 1
        gaps = {after - before for before, after in pairwise(places)}
        assert not gaps or max(gaps) - min(gaps) <= 1


class Item:
    """A case of a test, as pytest collects it."""

    def __init__(self, test, *marks):
        self.parent, self.originalname = "file", test
        self.marks = {mark.name: mark for mark in marks}

    def get_closest_marker(self, name):
        return self.marks.get(name)

    def add_marker(self, mark):
        self.marks[mark.name] = mark.mark


def slow(items):
    return ["slow" in item.marks for item in items]


def test_the_others_are_slow():
    two = pytest.mark.quick_cases(2).mark
    some, all_ = [Item("some", two) for _ in range(5)], [Item("all") for _ in range(3)]
    pytest_collection_modifyitems([*some, *all_])
    assert slow(some) == [False, True, True, True, False]
    assert not any(slow(all_))


def test_a_slow_case_takes_no_place():
    one, is_slow = pytest.mark.quick_cases(1).mark, pytest.mark.slow.mark
    items = [Item("some", one, is_slow), Item("some", one), Item("some", one)]
    pytest_collection_modifyitems(items)
    assert slow(items) == [True, False, True]
