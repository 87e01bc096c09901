"""Each caption metric is of its own row and pictures; what the section and the gate say of them."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from curate.run.schema import to_dataclass
from evaluate import gate
from evaluate.config import EvaluateConfig
from evaluate.evaluators import captions
from evaluate.results import Metric
from finetune.caption_check import FILE, LARGEST_UNSEEN, CaptionCheck
from finetune.caption_gain import fit
from finetune.intervals import Estimate
from tests.evaluate.test_run import ROOT

# Rows of the planted evaluation: base 0, exported 1, kept 2, last 3.
OTHER = {"val": [0.20, 0.30, 0.25, 9.0]}
NONE = {"val": [-0.05, 9.0, 0.04, 9.0], "train": [-0.06, 9.0, 0.10, 9.0]}
EFFECT = [0.40, 0.32, 0.30, 9.0]


class Losses:
    """Gains that are planted, with little noise."""

    def __init__(self, split: str, groups: int = 40) -> None:
        self.split, rng = split, np.random.default_rng(len(split))
        self.noise = rng.normal(0, 0.001, groups)
        keys = [f"{split}-{i}" for i in range(groups)]
        self.items = SimpleNamespace(groups=keys)
        self.exchanged = SimpleNamespace(own=SimpleNamespace(groups=keys))

    def against_other(self, row):
        return OTHER[self.split][row] + (1 + row) * self.noise

    def against_none(self, row):
        return NONE[self.split][row] + (1 + row) * self.noise

    def fit(self, row):
        effect = np.full(len(self.noise), EFFECT[row])
        return fit(self.against_other(row), effect, self.exchanged.own.groups)


@pytest.fixture
def measured(planted, tmp_path):
    def make(groups: int = 40, **changes):
        evaluation = planted(**changes)
        evaluation.caption_losses = lambda split: Losses(split, groups)
        evaluation.run = SimpleNamespace(finetune_dir=tmp_path)
        return dict(captions.measure(evaluation))

    return make


def test_each_metric_is_of_its_row_and_pictures(measured):
    found = measured()
    assert found.keys() == captions.EVALUATOR.metrics.keys()
    for name, value in {
        "caption_gain_base": 0.20,
        "caption_gain_kept": 0.25,
        "caption_gain_change": 0.05,
        "caption_fit_base": 0.20 / 0.40,
        "caption_fit_kept": 0.25 / 0.30,
        "caption_fit_exported": 0.30 / 0.32,
        "caption_gain_none_base": -0.05,
        "caption_gain_none_kept": 0.04,
        "caption_gain_train_minus_val": (0.10 + 0.06) - (0.04 + 0.05),
    }.items():
        assert found[name].value == pytest.approx(value, abs=0.003), name
        assert found[name].on == ("train and val" if "minus" in name else "val")
    assert found["caption_gain_train_minus_val"].groups == 80


def test_where_the_base_is_kept_there_is_no_change(measured):
    found = measured(val=[1, 1.1, 1.2, 1.3])
    assert found["caption_gain_kept"].value == found["caption_gain_base"].value
    for name in ("caption_gain_change", "caption_gain_train_minus_val"):
        assert "the base is kept" in found[name].reason


def test_too_few_pictures_or_too_few_other_captions_are_not_judged(measured):
    found = measured(items=20)
    assert {metric.value for metric in found.values()} == {None}
    assert "at least 32 needed" in found["caption_fit_exported"].reason
    found = measured(groups=31)
    assert "another one's can take the place of" in found["caption_fit_exported"].reason
    assert found["caption_gain_none_kept"].value is not None


def test_what_training_measured_before_it_began_is_shown(measured, tmp_path):
    assert "doctor.captions=off" in measured()["caption_fit_before"].reason
    before = Estimate(0.5, 0.4, 0.6, 120, 100)
    CaptionCheck(before, before, 0.3, 0, ()).save(tmp_path / FILE)
    assert measured()["caption_fit_before"] == Metric(0.5, 0.4, 0.6, 120, 100, "train")


# The section


@pytest.fixture
def shown(results, measured):
    def make(**changes):
        metrics = results.metrics | measured() | changes
        (section,) = captions.sections(replace(results, metrics=metrics))
        return section.body

    return make


@pytest.mark.parametrize(
    ("fit_kept", "says"),
    [
        (Metric(0.8, 0.7, 0.9, 60, 40, "val"), "Captions matter to it: fit +0.800"),
        (Metric(0.0, -0.1, 0.1, 60, 40, "val"), "Captions do not matter to it"),
        (Metric(0.12, 0.08, 0.16, 60, 40, "val"), "Captions matter little to it"),
        (Metric(0.2, 0.1, 0.3, 60, 40, "val"), "Captions matter to it, perhaps only a little"),
        (Metric(0.2, -0.1, 0.5, 60, 40, "val"), "is not known from so few pictures"),
    ],
)
def test_the_section_says_what_the_interval_allows(shown, fit_kept, says):
    assert says in shown(caption_fit_kept=fit_kept)


def test_memorised_captions_are_said_only_where_the_interval_says_so(shown):
    assert "are memorised: against no caption" in shown()
    few = Metric(0.01, -0.01, 0.03, 80, 80, "train and val")
    assert "are memorised" not in shown(caption_gain_train_minus_val=few)


@pytest.mark.parametrize(
    ("low", "high", "state"), [(0.7, 0.9, "good"), (-0.1, 0.1, "bad"), (0.1, 0.4, "warn")]
)
def test_the_headline_says_whether_captions_matter(low, high, state):
    metrics = {"caption_fit_kept": Metric((low + high) / 2, low, high, 60, 40, "val")}
    (said,) = captions.findings(metrics)
    assert (said.part, said.state, said.section) == ("cost", state, "captions")
    assert "the kept checkpoint" in said.text
    assert not list(captions.findings({"caption_fit_kept": Metric(reason="few")}))


def test_a_section_without_figures_says_why(results, shown):
    missing = Metric(reason="for a planted reason")
    assert "for a planted reason" in shown(caption_gain_kept=missing)
    assert "With another picture" in shown(caption_fit_kept=missing)
    (section,) = captions.sections(results)
    assert "did not measure it" in section.body


# The gate


@pytest.mark.parametrize(
    ("low", "high", "status"),
    [
        (0.7, 0.9, "passed"),
        (-0.2, 0.15, "failed"),
        (0.1, 0.4, "undecided"),
        (None, None, "undecided"),
    ],
)
def test_the_default_gate_demands_that_captions_matter_to_the_export(low, high, status):
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        rules = to_dataclass(compose("evaluate"), EvaluateConfig).gate
    rules.rules = {"captions_matter": rules.rules["captions_matter"]}
    value = None if low is None else (low + high) / 2
    (check,) = gate.check_all(rules, {"caption_fit_exported": Metric(value, low, high, 60)}, "")
    assert check.status == status
    threshold = rules.rules["captions_matter"].threshold
    assert threshold == captions.LEAST_FIT == LARGEST_UNSEEN  # of the check before training


@pytest.mark.parametrize(
    ("bounds", "wrong"),
    [((-0.06, 0.04), True), ((0.05, 0.21), False), ((0.36, 0.51), False), ((None, None), False)],
)
def test_captions_are_called_wrong_only_where_the_interval_says_so(bounds, wrong):
    low, high = bounds
    fit = Metric(None if low is None else (low + high) / 2, low, high, 64, 50)
    assert captions.captions_hardly_matter({"caption_fit_exported": fit}) is wrong
