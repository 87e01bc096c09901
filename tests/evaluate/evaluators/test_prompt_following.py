"""Prompt following: by hand, by brute force, and with planted embeddings."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import curate.clip.load
from evaluate.evaluators import prompt_following
from evaluate.sampling import Prompt
from finetune.intervals import Estimate, estimate

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
        mixed = self.skill * self.directions[rows] + self.noise[rows]
        return mixed / np.linalg.norm(mixed, axis=1, keepdims=True)


def picture(number: int) -> Image.Image:
    drawn = Image.new("RGB", (4, 4), (number, 0, 0))
    drawn.putpixel((3, 3), (255, 255, 255))  # a picture of one colour counts as blank
    return drawn


@pytest.fixture
def scene(tmp_path: Path) -> SimpleNamespace:
    """Kept draws what it is asked for, base always the same other thing."""
    files: dict[str, list[Path]] = {"base": [], "kept": []}
    for number in range(COUNT):
        for label, shown in (("base", COUNT), ("kept", number)):
            files[label].append(tmp_path / f"{label}-{number}.png")
            picture(shown).save(files[label][-1])
    captions = [f"thing {number}" for number in range(COUNT)]
    return SimpleNamespace(captions=captions, real=[picture(n) for n in range(COUNT)], files=files)


def measure(scene: SimpleNamespace, skill: float, captions: list[str]) -> dict[str, Any]:
    scorer: Any = Planted(skill)
    return prompt_following.compare(
        scorer, captions, scene.real, scene.files, [str(i) for i in range(len(captions))]
    )


def test_pictures_like_the_real_ones_score_one_and_others_near_zero(scene: SimpleNamespace) -> None:
    found = measure(scene, 3.0, scene.captions)
    assert found["clip_kept"].value == pytest.approx(1)
    assert found["clip_base"].value == pytest.approx(0, abs=0.1)
    assert found["clip_change"].low > 0.5


def evaluation(scene: SimpleNamespace, kept: int = 2, count: int = COUNT) -> Any:
    """Kept is row 2; the files of row 3 are the base's, and real pictures are found by their keys."""
    base, drawn = scene.files["base"], scene.files["kept"]
    return SimpleNamespace(
        config=SimpleNamespace(samples=SimpleNamespace(clip_captions=count), clip=None),
        device="cpu",
        prompts=[Prompt(f"key-{i}", caption) for i, caption in enumerate(scene.captions)],
        kept=kept,
        drawn={0: base, 2: drawn, 3: base},
        groups_of=lambda keys: [key.removeprefix("key-") for key in keys],
        real_picture=lambda key: scene.real[int(key.removeprefix("key-"))],
    )


def test_the_kept_checkpoint_is_compared_with_the_base(scene, monkeypatch) -> None:
    monkeypatch.setattr(curate.clip.load, "load_clip", lambda *_: Planted(3.0))
    found: Any = dict(prompt_following.measure(evaluation(scene)))
    assert found == measure(scene, 3.0, scene.captions)
    assert found["clip_change"].low > 0.5
    assert found["clip_change"].n == COUNT
    fewer = dict(prompt_following.measure(evaluation(scene, count=20)))
    assert fewer["clip_change"].n == 20


@pytest.mark.parametrize(
    ("changes", "reason"), [({"kept": 0}, "the base is kept"), ({"count": 15}, "15 captions")]
)
def test_what_cannot_be_compared_is_said_without_a_clip(scene, changes, reason) -> None:
    found = dict(prompt_following.measure(evaluation(scene, **changes)))
    assert found.keys() == set(prompt_following.NAMES)
    assert {reason in metric.reason for metric in found.values()} == {True}


def test_a_clip_that_does_not_know_the_pairs_measures_nothing(scene: SimpleNamespace) -> None:
    for skill in (0.0, 0.02, -1.0):
        found = measure(scene, skill, scene.captions)
        assert {metric.value for metric in found.values()} == {None}
        assert "hardly tells" in found["clip_change"].reason


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


def test_equal_captions_measure_nothing(scene: SimpleNamespace) -> None:
    found = measure(scene, 3.0, ["thing 1"] * COUNT)
    assert "all captions are the same" in found["clip_change"].reason


def unit(*shape: int, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=shape)
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def test_anchors_are_the_diagonal_and_the_mismatched_rest():
    images, texts = unit(5, 8), unit(5, 8, seed=1)
    captions = ["a", "b", "a", "c", "d"]
    found = prompt_following.clip_anchors(images, texts, captions)
    for i in range(5):
        others = [images[i] @ texts[j] for j in range(5) if captions[i] != captions[j]]
        assert found[0][i] == pytest.approx(np.mean(others))
        assert found[1][i] == pytest.approx(images[i] @ texts[i])


def test_anchored_scale_is_one_for_the_real_pictures_and_zero_for_shuffled_captions():
    texts = unit(60, 16)
    images = unit(60, 16, seed=1) + 2 * texts
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    captions = [str(i) for i in range(60)]
    anchors = prompt_following.clip_anchors(images, texts, captions)
    real = prompt_following.anchored(prompt_following.clip_similarity(images, texts), *anchors)
    assert real.mean() == pytest.approx(1)
    rolled = [
        prompt_following.anchored(
            prompt_following.clip_similarity(images, np.roll(texts, k, axis=0)), *anchors
        ).mean()
        for k in range(1, 60)
    ]
    assert np.mean(rolled) == pytest.approx(0, abs=1e-9)


def test_the_interval_of_the_anchored_mean_covers_the_truth():
    """Anchors of 40 captions are estimates too; taken as exact, the interval covers 60 % or so."""
    rng, covered, trials = np.random.default_rng(0), 0, 300
    for _ in range(trials):
        wrong = rng.normal(0.1, 0.05, 40)
        right = wrong + rng.normal(0.1, 0.15, 40)
        drawn = wrong + rng.normal(0.2, 0.05, 40)  # twice as far from wrong as the real pictures
        found = estimate(prompt_following.anchored(drawn, wrong, right))
        covered += found.low <= 2 <= found.high
    assert covered / trials > 0.88
