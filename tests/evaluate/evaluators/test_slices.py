"""What is said of slices is what was measured, and hostile labels stay text."""

from __future__ import annotations

from dataclasses import replace

import pytest

from evaluate.evaluators import slices
from evaluate.results import Metric, SliceResult
from tests.evaluate.conftest import HOSTILE

CHANGE = Metric(-0.1, -0.15, -0.05, 20, 12, "val")
WORSE = Metric(0.15, 0.02, 0.28, 20, 12, "val")
UNCLEAR = Metric(0.2, -0.02, 0.42, 20, 12, "val")
FEW = Metric(n=4, groups=3, on="val", reason="fewer than 8 groups of pictures")


def found(results, *slices):
    return replace(results, slices=slices)


def test_the_slice_that_gained_least_is_named(results):
    rows = [
        SliceResult("similarity", "lowest half (0.2 to 0.3)", CHANGE, WORSE),
        SliceResult("similarity", "highest half (0.3 to 0.4)", CHANGE, UNCLEAR),
        SliceResult("source", "rare", FEW, FEW),
    ]
    assert slices.sentence(found(results, *rows)) == (
        "Of 2 slices, similarity “lowest half (0.2 to 0.3)” gained least: -10.0 % [-15.0, -5.0], which is "
        "+15.0 points [+2.0, +28.0] from all other held-out pictures (interval corrected for 2 slices)."
    )
    more = replace(rows[1], difference=Metric(0.1, 0.01, 0.2, 20, 12))
    said = slices.sentence(found(results, rows[0], more))
    assert "lowest half" in said
    assert said.endswith(" 1 more gained less than the others.")


def test_none_is_named_by_chance(results):
    unclear = SliceResult("similarity", "lowest half", CHANGE, UNCLEAR)
    assert slices.sentence(found(results, unclear)) == (
        "None of 1 slice gained less than the other held-out pictures by more than chance explains; least "
        "gained similarity “lowest half”, -10.0 % [-15.0, -5.0]."
    )
    assert slices.sentence(found(results, SliceResult("source", "rare", FEW, FEW))) == (
        "No slice of the held-out pictures has enough groups to be judged."
    )


def test_the_section_shows_every_slice_and_escapes_labels(results):
    rows = [
        SliceResult("source", f"{HOSTILE} costs $1 or $2", CHANGE, WORSE),
        SliceResult("source", "rare", FEW, FEW),
        SliceResult("rule margin", "", Metric(reason="see similarity"), Metric()),
    ]
    [section] = slices.sections(found(results, *rows))
    for text in ("-10.0 % [-15.0, -5.0]", "+15.0 points", "rare", FEW.reason, "see similarity"):
        assert text in section.body
    assert "<img" not in section.body
    assert "$1 or" in section.body
    assert not list(slices.sections(found(results)))


def test_without_a_change_nothing_is_measured(planted):
    evaluation = planted()
    evaluation.kept = 0
    [(name, metric)] = slices.measure(evaluation)
    assert name == "worst_slice_change"
    assert metric.value is None
    assert "the base is kept" in metric.reason


def test_the_metric_has_the_corrected_interval(planted):
    from evaluate.metrics.slices import Slice
    from finetune.intervals import Estimate

    wide = Estimate(-0.1, -0.2, 0.0, 20, 12)
    one = Slice(
        "source", "a", 20, 12, Estimate(-0.1, -0.15, -0.05, 20, 12), wide,
        Estimate(0.1, -0.1, 0.3, 20, 12),
    )  # fmt: skip
    evaluation = planted()
    evaluation.slices = [one]
    [(_, metric)] = slices.measure(evaluation)
    assert (metric.low, metric.value, metric.high) == pytest.approx((-0.2, -0.1, 0.0))
    assert (metric.n, metric.groups, metric.on) == (20, 12, "val")
    evaluation.slices = [Slice("source", "a", 3, 3)]
    [(_, metric)] = slices.measure(evaluation)
    assert metric.reason == "no slice of the pictures has enough groups"


def test_a_slice_that_got_worse_is_a_cost():
    name = "worst_slice_change"
    assert not list(slices.findings({name: CHANGE}))
    assert not list(slices.findings({name: UNCLEAR}))
    [finding] = slices.findings({name: WORSE})
    assert (finding.part, finding.state, finding.section) == ("cost", "warn", "slices")
    assert "+15.0 % [+2.0, +28.0]" in finding.text
