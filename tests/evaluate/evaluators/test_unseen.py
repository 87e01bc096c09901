"""The split that nothing was chosen by: which way the change goes, and when there is none."""

from __future__ import annotations

import pytest

from evaluate.evaluators import unseen
from tests.evaluate.conftest import scores


def measure(evaluation):
    return dict(unseen.measure(evaluation))["test_change"]


def test_the_kept_checkpoint_against_the_base(planted):
    evaluation = planted(test=scores([1, 0.85], 40))
    assert measure(evaluation).value == pytest.approx(0.85 - 1, abs=0.01)
    assert evaluation.asked == [2]  # the kept row


@pytest.mark.parametrize("test", [None, scores([1, 0.85], 31)])
def test_too_few_pictures_are_said(planted, test):
    found = measure(planted(test=test))
    assert found.value is None
    assert "fewer than 32" in found.reason


def test_a_base_that_is_kept_is_not_tested(planted):
    found = measure(planted(val=[1, 1.1, 1.2, 1.3], test=scores([1, 0.85], 40)))
    assert found.value is None
    assert "the base is kept" in found.reason
