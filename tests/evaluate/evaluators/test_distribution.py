"""Distribution and variety: planted features in a whole measurement, and what the report says of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from evaluate.evaluators import distribution
from evaluate.measure.features import unit
from evaluate.measure_config import DistributionConfig
from evaluate.outputs import headline
from evaluate.results import Metric
from finetune.drawing.sampling import Prompt

COUNT, WIDTH = 48, 32


class Planted:
    """Looks a picture's features up by its name: base-KEY, kept-KEY-AGAIN, real-KEY."""

    def __init__(self, collapse: float, shift: float) -> None:
        rng = np.random.default_rng(0)
        self.shown = rng.normal(size=(COUNT, WIDTH))
        self.rng, self.known = rng, {}
        self.collapse, self.shift = collapse, shift

    def one(self, name: str) -> np.ndarray:
        if name not in self.known:
            kind, number, *_ = name.split("-")
            spread = 1 - self.collapse if kind == "kept" else 1
            made = spread * (self.shown[int(number)] + 0.7 * self.rng.normal(size=WIDTH)) + 0.5
            made[0] += self.shift if kind == "kept" else 0
            self.known[name] = unit(made[None])[0]
        return self.known[name]

    def of_files(self, paths: list[Path]) -> np.ndarray:
        return np.stack([self.one(path.name) for path in paths])


def evaluation(
    collapse: float = 0.0,
    shift: float = 0.0,
    kept: int = 2,
    count: int = COUNT,
    per_group: int = 1,
    **settings,
) -> Any:
    planted = Planted(collapse, shift)
    names = {0: "base", 2: "kept"}

    def draw(row: int, prompts: list[Prompt], again: int = 0) -> list[Path]:
        return [Path(f"{names[row]}-{prompt.key}-{again}") for prompt in prompts]

    prompts = [Prompt(str(i), f"thing {i}") for i in range(COUNT)]
    return SimpleNamespace(
        config=SimpleNamespace(
            samples=SimpleNamespace(clip_captions=count),
            distribution=DistributionConfig(**settings),
        ),
        prompts=prompts,
        kept=kept,
        drawn={row: draw(row, prompts) for row in (0, 2)},
        draw=draw,
        features=planted,
        real_features=lambda features, keys: np.stack(
            [features.one(f"real-{key}") for key in keys]
        ),
        groups_of=lambda keys: [str(int(key) // per_group) for key in keys],
    )


def measured(**planted) -> dict[str, Any]:
    found = list(distribution.measure(evaluation(**planted)))
    assert sorted(name for name, _ in found) == sorted(distribution.EVALUATOR.metrics)
    return dict(found)


def test_a_model_as_good_as_the_base_changes_nothing():
    found = measured()
    for name in ("kid_change", "vendi_change", "caption_vendi_change"):
        assert found[name].low < 0 < found[name].high
    assert found["kid_kept"].value < 2 * found["kid_floor"].value
    assert found["kid_p_kept"].value > 0.05
    assert (found["kid_change"].n, found["kid_change"].groups) == (COUNT, COUNT)
    assert found["precision_base"].value is None


def test_a_shift_is_seen_as_distance():
    found = measured(shift=2.0)
    assert found["kid_change"].low > 0
    assert found["kid_kept"].value > found["kid_floor"].value
    assert found["kid_p_kept"].value == 0.001
    assert found["kid_p_base"].value > 0.05


def test_a_collapse_is_seen_as_less_variety():
    found = measured(collapse=0.6)
    assert found["vendi_change"].high < 0
    assert found["caption_vendi_change"].high < 0
    assert found["vendi_real"].value == pytest.approx(found["vendi_base"].value, rel=0.15)
    assert found["vendi_change"].value == pytest.approx(
        found["vendi_kept"].value / found["vendi_base"].value - 1
    )
    assert 1 < found["caption_vendi_kept"].value < found["caption_vendi_base"].value <= 2


def test_captions_are_drawn_again_one_of_each_group_and_as_often_as_asked():
    asked = evaluation(per_group=2, captions=20, seeds=4)
    drawn: list[tuple[int, list[str], int]] = []
    draw = asked.draw

    def note(row: int, prompts: list[Prompt], again: int) -> list[Path]:
        drawn.append((row, [prompt.key for prompt in prompts], again))
        return draw(row, prompts, again)

    asked.draw = note
    found = dict(distribution.measure(asked))
    firsts = [str(2 * i) for i in range(20)]
    assert drawn == [(row, firsts, again) for row in (0, 2) for again in (1, 2, 3)]
    assert (found["caption_vendi_kept"].n, found["caption_vendi_kept"].groups) == (80, 20)
    assert found["kid_change"].groups == 24


@pytest.mark.parametrize(
    ("planted", "reason"),
    [
        ({"features": "off"}, "left out by distribution.features=off"),
        ({"count": 0}, "left out by samples.clip_captions=0"),
        ({"kept": 0}, "the base is kept"),
        ({"count": 23}, "captions of 23 groups are drawn; at least 24 needed"),
        ({"per_group": 3}, "captions of 16 groups are drawn; at least 24 needed"),
    ],
)
def test_nothing_is_measured_that_the_number_of_pictures_does_not_allow(planted, reason):
    for metric in measured(**planted).values():
        assert metric.value is None
        assert reason in metric.reason


def test_options_say_why_they_are_not_measured():
    found = measured(captions=0)
    assert found["caption_vendi_kept"].reason == "left out by distribution.captions=0"
    assert "precision_recall=true" in found["recall_kept"].reason
    assert headline.missing({"recall_kept": found["recall_kept"]}) == {}  # nobody misses them
    found = measured(captions=15, precision_recall=True)
    assert "15 captions are drawn several times; at least 16" in found["caption_vendi_kept"].reason
    assert "48 captions are drawn; at least 500" in found["precision_base"].reason


def test_precision_and_recall_are_measured_where_there_are_enough(monkeypatch):
    monkeypatch.setattr(distribution, "LEAST_PICTURES", COUNT)
    found = measured(precision_recall=True, collapse=0.9)
    assert found["recall_kept"].value < found["recall_base"].value
    assert (
        found["precision_base"].low <= found["precision_base"].value <= found["precision_base"].high
    )


def test_unit_vectors_are_scaled_for_the_kernel():
    rng = np.random.default_rng(0)
    base, kept, real = (unit(rng.normal(size=(30, 16)) + m) for m in (0, 1, 0))
    seen = distribution.Pictures(base, kept, real, [str(i) for i in range(30)])
    found = dict(distribution.distances(seen, scaled=True))
    again = dict(
        distribution.distances(
            distribution.Pictures(4 * base, 4 * kept, 4 * real, seen.groups), scaled=False
        )
    )
    assert found == again
    assert found != dict(distribution.distances(seen, scaled=False))


@pytest.mark.parametrize(
    ("planted", "said"),
    [
        (
            {},
            [
                "neither clearly closer to nor clearly farther from real ones",
                "as far from them as another set",
            ],
        ),
        (
            {"shift": 2.0},
            ["are farther from real ones than the base", "farther from them than another set"],
        ),
        (
            {"collapse": 0.6},
            ["Together, they are less varied than the base", "For one caption, they are less"],
        ),
        (
            {"captions": 0},
            ["variety for one caption: not measured, left out by distribution.captions=0"],
        ),
    ],
)
def test_the_report_says_what_was_found(results, planted, said):
    metrics = {**results.metrics, **measured(**planted)}
    (section,) = distribution.sections(replace(results, metrics=metrics))
    for words in said:
        assert words in distribution.finding(replace(results, metrics=metrics))
    assert "Real pictures" in str(section.body)
    assert "48 groups" in str(section.body)


def test_the_report_says_why_nothing_was_measured(results):
    none = {**results.metrics, "kid_change": Metric(reason="the base is kept")}
    (section,) = distribution.sections(replace(results, metrics=none))
    assert "Not measured: the base is kept." in str(section.body)


@pytest.mark.parametrize(
    ("planted", "kinds"),
    [
        ({}, ["good", "info"]),  # 48 pictures do not exclude a loss of variety of 5 %
        ({"shift": 2.0}, ["bad", "bad"]),
        ({"collapse": 0.6}, ["bad", "bad"]),
    ],
)
def test_the_headline_says_what_it_costs(planted, kinds):
    found = list(distribution.findings(measured(**planted)))
    assert [each.state for each in found] == kinds
    assert {each.section for each in found} == {"distribution"}


def test_less_variety_than_the_base_is_no_cost_above_that_of_real_pictures():
    metrics = measured(collapse=0.6)
    metrics["vendi_real"] = Metric(metrics["vendi_kept"].value - 0.1)
    assert [each.state for each in distribution.findings(metrics)][1] == "good"


def test_the_headline_says_nothing_of_what_was_not_measured():
    assert list(distribution.findings(measured(kept=0))) == []
