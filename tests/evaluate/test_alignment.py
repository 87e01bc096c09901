"""Prompt following with planted embeddings: measured where CLIP knows the pairs, and only there."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from evaluate import alignment
from finetune.intervals import Bootstrap, Estimate

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
    return alignment.measure(scorer, captions, scene.real, scene.files, Bootstrap(500))


def test_pictures_like_the_real_ones_score_one_and_others_near_zero(scene: SimpleNamespace) -> None:
    found = measure(scene, 3.0, scene.captions)
    assert found["clip_kept"].value == pytest.approx(1)
    assert found["clip_base"].value == pytest.approx(0, abs=0.1)
    assert found["clip_change"].low > 0.5


def test_a_clip_that_does_not_know_the_pairs_measures_nothing(scene: SimpleNamespace) -> None:
    for skill in (0.0, 0.02, -1.0):
        found = measure(scene, skill, scene.captions)
        assert {metric.value for metric in found.values()} == {None}
        assert "hardly tells" in found["clip_change"].reason


@pytest.mark.parametrize(
    ("gap", "known"),
    [
        (Estimate(0.100, 0.060, 0.140, COUNT), True),
        (Estimate(0.100, 0.040, 0.160, COUNT), False),  # it may be 0.04 or 0.16
        (Estimate(1e-7, 9e-8, 1.1e-7, COUNT), False),  # rounding, however regular
        (Estimate(-0.10, -0.12, -0.08, COUNT), False),
    ],
)
def test_a_gap_must_be_large_and_known(gap: Estimate, known: bool) -> None:
    assert (alignment._unknown(gap) == "") == known


def test_equal_captions_measure_nothing(scene: SimpleNamespace) -> None:
    found = measure(scene, 3.0, ["thing 1"] * COUNT)
    assert "all captions are the same" in found["clip_change"].reason
