"""Work in threads, handed out in order."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from curate.run.threads import in_order


@pytest.fixture
def pool():
    with ThreadPoolExecutor(4) as threads:
        yield threads


@pytest.mark.parametrize("ahead", [0, 1, 3, 100])
def test_results_come_in_the_order_of_the_items(pool, ahead):
    def slowest_first(number):
        time.sleep(0.001 * (10 - number))
        return number * number

    assert list(in_order(pool, slowest_first, range(10), ahead)) == [n * n for n in range(10)]


def test_no_more_are_begun_than_were_asked_for_and_some_ahead(pool):
    begun = []
    results = in_order(pool, lambda number: begun.append(number) or number, iter(range(100)), 5)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    assert len(begun) <= 3 + 5
    results.close()


def test_what_has_not_begun_when_the_caller_leaves_never_does():
    begun, gate = [], threading.Event()

    def wait(number):
        begun.append(number)
        if number:
            gate.wait(20)
        return number

    with ThreadPoolExecutor(1) as single:
        results = in_order(single, wait, range(100), 5)
        assert next(results) == 0
        results.close()
        gate.set()
    assert set(begun) <= {0, 1}


def test_several_at_a_time(pool):
    meeting = threading.Barrier(3, timeout=20)  # or it breaks
    assert len(list(in_order(pool, lambda _: meeting.wait(), range(3), 3))) == 3


def test_an_error_comes_in_its_turn_and_ends_the_rest(pool):
    def fail_at_two(number):
        if number == 2:
            raise ValueError("two")
        return number

    results = in_order(pool, fail_at_two, range(1000), 2)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(results)
    assert next(results, "nothing") == "nothing"
