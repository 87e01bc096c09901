"""Obedience of planted pictures: some that have the condition's edges, some that have none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from evaluate.evaluators import obedience
from evaluate.results import BASE_KEPT, NOT_ASKED
from finetune.drawing.sampling import Prompt
from finetune.methods.controlnet import Controlnet
from finetune.methods.lora import Lora


def box(place: int) -> Image.Image:
    """A white square on black."""
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[place : place + 24, place : place + 24] = 255
    return Image.fromarray(pixels)


def planted(folder, method, kept=2, follows=True, channels=3) -> Any:
    """Eight pictures whose conditions are squares; kept ones have them in place, the base's are plain."""
    prompts, drawn = [], {0: [], 2: []}
    for place in range(8):
        condition = torch.from_numpy(np.array(box(place))).permute(2, 0, 1)
        if channels == 1:
            from finetune.conditions import of_picture

            condition = of_picture(box(place))
        prompts.append(Prompt(f"k{place}", "a square", control=condition))
        for row, picture in ((0, box(30)), (2, box(place if follows else 30))):
            drawn[row].append(folder / f"{row}-{place}.png")
            picture.save(drawn[row][-1])
    return SimpleNamespace(
        prompts=prompts,
        drawn=drawn,
        kept=kept,
        run=SimpleNamespace(config=SimpleNamespace(method=method)),
        config=SimpleNamespace(samples=SimpleNamespace(clip_captions=64)),
        groups_of=lambda keys: list(keys),
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_with_the_conditions_edges_obey(tmp_path, channels):
    pytest.importorskip("cv2")
    found = dict(obedience.measure(planted(tmp_path, Controlnet(), channels=channels)))
    assert found["obedience_kept"].value == pytest.approx(1)
    off, change = found["obedience_off"].value, found["obedience_change"].low
    assert off is not None
    assert change is not None
    assert off < 0.5 < change
    assert found["obedience_change"].n == 8
    [finding] = obedience.findings(found)
    assert finding.state == "good"
    assert finding.text.startswith("Pictures follow the condition: ")
    disobedient = dict(obedience.measure(planted(tmp_path, Controlnet(), follows=False)))
    assert disobedient["obedience_change"].value == 0
    [finding] = obedience.findings(disobedient)
    assert finding.text.startswith("Pictures do not follow")


def test_what_is_not_measured_says_why(tmp_path, monkeypatch):
    def reason(evaluation):
        return {metric.reason for _, metric in obedience.measure(evaluation)}

    [said] = reason(planted(tmp_path, Lora()))
    assert said.startswith(NOT_ASKED)
    [said] = reason(planted(tmp_path, Controlnet(), kept=0))
    assert said.startswith(BASE_KEPT)
    monkeypatch.setattr(obedience, "find_spec", lambda name: None)
    [said] = reason(planted(tmp_path, Controlnet()))
    assert "darkroom[control]" in said
