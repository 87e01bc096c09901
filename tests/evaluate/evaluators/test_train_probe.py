"""The change on training pictures is measured on training pictures."""

from __future__ import annotations

import pytest

from evaluate.evaluators import train_probe


def test_the_kept_checkpoint_against_the_base_on_training_pictures(planted):
    found = dict(train_probe.measure(planted()))["train_probe_change"]
    assert found.value == pytest.approx(0.7 - 1, abs=0.01)
