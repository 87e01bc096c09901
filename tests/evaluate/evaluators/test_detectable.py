"""The smallest detectable change follows from the scatter of the kept checkpoint."""

from __future__ import annotations

import pytest

from evaluate.evaluators import descriptions, detectable
from finetune.intervals import detectable_change


def test_what_is_detectable_is_that_of_the_kept_checkpoint(planted):
    evaluation = planted()
    val = evaluation.evidence.val
    found = dict(detectable.measure(evaluation))["detectable_change"]
    assert found.value == pytest.approx(detectable_change(val[2] - val[0]))
    assert found.value != pytest.approx(detectable_change(val[3] - val[0]))


def test_what_is_detectable_where_the_base_is_kept_is_that_of_the_last(planted):
    evaluation = planted(val=[1, 1.1, 1.2, 1.3])
    val = evaluation.evidence.val
    found = dict(detectable.measure(evaluation))["detectable_change"]
    assert evaluation.kept == 0
    assert found.value == pytest.approx(detectable_change(val[3] - val[0]))


def test_it_comes_after_the_changes_themselves():
    names = list(descriptions())
    assert names.index("test_change") < names.index("detectable_change") < names.index("clip_base")
