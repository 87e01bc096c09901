"""Prompt following: planted embeddings, blank pictures, and what the report says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from curate.clip.config import ClipConfig
from evaluate.evaluators import prompt_following
from evaluate.evaluators.prompt_following import NAMES, RETRIEVAL, Embedded, compare
from evaluate.measure.features import Features, unit
from evaluate.measure.grid import LossStore
from finetune.drawing.sampling import Prompt
from finetune.intervals import Estimate

COUNT, WIDTH = 24, 64


class Planted:
    """Stands in for a CLIP: a picture's colour names its caption, and `skill` says how well it shows."""

    def __init__(self, skill: float) -> None:
        rng = np.random.default_rng(0)
        self.directions = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0][: COUNT + 1]
        self.noise = rng.normal(size=(COUNT + 1, WIDTH)) / np.sqrt(WIDTH)
        self.skill = skill

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        return self.directions[[int(text.split()[-1]) for text in texts]]

    def encode_images(self, images: list[Image.Image]) -> np.ndarray:
        rows = [image.getpixel((0, 0))[0] for image in images]  # type: ignore[index]
        return unit(self.skill * self.directions[rows] + self.noise[rows])


def picture(number: int) -> Image.Image:
    drawn = Image.new("RGB", (4, 4), (number, 0, 0))
    drawn.putpixel((3, 3), (255, 255, 255))  # a picture of one colour counts as blank
    return drawn


@pytest.fixture
def evaluation(tmp_path: Path):
    """A factory. Kept (row 2) draws what it is asked for, base (rows 0 and 3) always the same other thing."""
    files: dict[str, list[Path]] = {"base": [], "kept": []}
    for number in range(COUNT):
        for label, shown in (("base", COUNT), ("kept", number)):
            files[label].append(tmp_path / f"{label}-{number}.png")
            picture(shown).save(files[label][-1])

    def make(
        skill: float = 3.0, kept: int = 2, count: int = COUNT, captions=None, groups=None
    ) -> Any:
        clip, names = Planted(skill), captions or [f"thing {number}" for number in range(COUNT)]
        features = Features(clip.encode_images)
        return SimpleNamespace(
            config=SimpleNamespace(
                samples=SimpleNamespace(clip_captions=count), clip=ClipConfig("planted")
            ),
            grid=SimpleNamespace(store=LossStore(tmp_path / "losses.npz")),
            prompts=[Prompt(f"key-{i}", caption) for i, caption in enumerate(names)],
            kept=kept,
            drawn={0: files["base"], 2: files["kept"], 3: files["base"]},
            clip=clip,
            clip_features=features,
            groups_of=lambda keys: [(groups or {}).get(key, key) for key in keys],
            real_features=lambda of, keys: of.of(
                keys, lambda key: picture(int(key.removeprefix("key-")))
            ),
        )

    return make


def measured(evaluation: Any) -> dict[str, Any]:
    return dict(prompt_following.measure(evaluation))


def test_pictures_like_the_real_ones_score_one_and_others_near_zero(evaluation) -> None:
    found = measured(evaluation())
    assert found["clip_kept"].value == pytest.approx(1)
    assert found["clip_base"].value == pytest.approx(0, abs=0.1)
    assert found["clip_change"].low > 0.5
    assert (found["clip_change"].n, found["clip_change"].groups) == (COUNT, COUNT)
    assert measured(evaluation(count=20))["clip_change"].n == 20


def test_similarities_of_single_pictures_are_stored_for_comparisons(evaluation) -> None:
    planted = evaluation(count=20)
    measured(planted)
    stored = {name.rpartition("/")[2]: a for name, a in planted.grid.store.arrays.items()}
    assert stored["keys"].tolist() == [f"key-{i}" for i in range(20)]
    assert (str(stored["on"]), str(stored["instrument"])) == ("val", "measured with planted")
    images, texts = (
        planted.clip_features.of_files(planted.drawn[2][:20]),
        planted.clip.encode_texts([prompt.caption for prompt in planted.prompts[:20]]),
    )
    assert np.allclose(stored["values"], [np.dot(i, t) for i, t in zip(images, texts, strict=True)])
    blind = evaluation(skill=0.0)
    measured(blind)
    assert not blind.grid.store.arrays


def test_captions_are_found_again_by_the_pictures_that_show_them(evaluation) -> None:
    found = measured(evaluation())
    assert found["top1_kept"].value == found["top1_real"].value == found["top5_kept"].value == 1
    assert found["top1_base"].value < 0.1
    assert found["top1_change"].low > 0.7
    assert found["top1_change"].value == 1 - found["top1_base"].value
    assert found["top5_base"].value < 0.5  # chance is 5 of 24


def test_siblings_count_once_and_are_not_wrong_answers(evaluation) -> None:
    groups = {"key-0": "g", "key-1": "g", "key-2": "g"}
    found = measured(evaluation(groups=groups))
    assert {(metric.n, metric.groups) for metric in found.values()} == {(COUNT, COUNT - 2)}
    same = [
        f"thing {max(number, 2)}" for number in range(COUNT)
    ]  # equal captions join their groups
    found = measured(evaluation(captions=same))
    assert {(metric.n, metric.groups) for metric in found.values()} == {(COUNT, COUNT - 2)}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"kept": 0}, "the base is kept"),
        ({"count": 15}, "15 captions"),
        ({"count": 0}, "left out by samples.clip_captions=0"),
        ({"captions": ["thing 1"] * COUNT}, "1 groups of different captions; at least 16"),
    ],
)
def test_what_cannot_be_compared_is_said(evaluation, changes, reason) -> None:
    found = measured(evaluation(**changes))
    assert found.keys() == {*NAMES, *RETRIEVAL[1], *RETRIEVAL[5]}
    assert {reason in metric.reason for metric in found.values()} == {True}


def test_blank_pictures_are_left_out_on_both_sides(evaluation) -> None:
    asked = evaluation()
    for number in range(3):
        Image.new("RGB", (4, 4)).save(asked.drawn[2][number])
    assert {metric.n for metric in measured(asked).values()} == {COUNT - 3}
    for number in range(3, 9):
        Image.new("RGB", (4, 4)).save(asked.drawn[0][number])
    (reason,) = {metric.reason for metric in measured(asked).values()}
    assert (
        reason == "15 groups of different captions (9 more have blank pictures); at least 16 needed"
    )


def test_a_clip_that_does_not_know_the_pairs_measures_nothing(evaluation) -> None:
    for skill in (0.0, 0.02, -1.0):
        found = measured(evaluation(skill=skill))
        assert {metric.value for metric in found.values()} == {None}
        assert "hardly tells" in found["top1_change"].reason


@pytest.mark.parametrize(
    ("gap", "known"),
    [
        (Estimate(0.100, 0.060, 0.140, COUNT, COUNT), True),
        (Estimate(0.100, 0.040, 0.160, COUNT, COUNT), False),  # it may be 0.04 or 0.16
        (Estimate(1e-7, 9e-8, 1.1e-7, COUNT, COUNT), False),  # rounding, however regular
        (Estimate(-0.10, -0.12, -0.08, COUNT, COUNT), False),
    ],
)
def test_a_gap_must_be_large_and_known(gap: Estimate, known: bool) -> None:
    assert (prompt_following._unknown(gap) == "") == known


def test_a_model_that_forgets_captions_is_found_again_less_often() -> None:
    """Every second kept picture shows something else."""
    rng = np.random.default_rng(0)
    texts = np.linalg.qr(rng.normal(size=(64, 64)))[0][:40]
    noise = [rng.normal(size=(40, 64)) / 16 for _ in range(3)]
    forgets = np.where(np.arange(40)[:, None] % 2, texts, texts[rng.permutation(40)])
    real, base, kept = (unit(x + e) for x, e in zip((texts, texts, forgets), noise, strict=True))
    found = compare(Embedded(texts, real, base, kept, [str(i) for i in range(40)]))
    assert found["top1_base"].value == 1
    assert found["top1_kept"].value == pytest.approx(0.5, abs=0.06)
    assert found["top1_change"].high < -0.3


def test_the_report_names_chance_and_the_ceiling(evaluation, results) -> None:
    metrics = measured(evaluation())
    (section,) = prompt_following.sections(replace(results, metrics={**results.metrics, **metrics}))
    body = str(section.body)
    assert "among those of 24 groups of held-out pictures, for 100 % [86, 100] of the kept" in body
    assert "Chance" in body
    assert "4.2 %" in body  # 1 of 24
    assert "20.8 %" in body
    assert "chose the training pairs" in body
