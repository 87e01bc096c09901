"""A task is begun up to three times, and only what happens to its own worker counts."""

import pytest

from curate.run.engine.attempts import Attempts
from curate.run.engine.tasks import ATTEMPTS


def test_a_task_whose_worker_ends_is_next_until_it_has_failed_three_times():
    left = Attempts(["a", "b"])
    for _ in range(ATTEMPTS - 1):
        place = left.begin()
        assert (place, left.worker_ended(place, True, "by SIGKILL")) == (0, None)
    result = left.worker_ended(left.begin(), True, "by SIGKILL")
    assert result is not None
    assert (result.task, result.error, result.attempts) == (
        "a",
        "its process ended by SIGKILL",
        ATTEMPTS,
    )
    assert list(left.waiting) == [1]
    assert left.done(left.begin(), "B").attempts == 1


def test_workers_that_end_unbuilt_are_counted_in_a_row():
    left = Attempts(["a"])
    for is_built in (False, False, True, False, False):
        assert left.worker_ended(None, is_built, "") is None
    with pytest.raises(
        RuntimeError, match="3 workers in a row ended before they were built, the last by SIGKILL"
    ):
        left.worker_ended(None, False, "by SIGKILL")
    assert list(left.waiting) == [0]


def test_what_was_not_sent_is_no_attempt():
    left = Attempts(["a", "b"])
    left.take_back(left.begin())
    place = left.begin()
    assert (place, left.done(place, "A").attempts) == (0, 1)
