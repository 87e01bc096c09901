"""The starter CLIP's training step, on noise with names."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from workflows.starter import clip
from workflows.starter.architecture import build_student
from workflows.starter.clip import ClipTask
from workflows.starter.emoji_sets import Pictures
from workflows.starter.loop import TrainingState
from workflows.starter.meaning import Lesson
from workflows.starter.pretrained import SENTENCE_WIDTH, Meanings


@pytest.fixture
def task(noise_with_names: Pictures, tokenizer, monkeypatch: pytest.MonkeyPatch) -> ClipTask:
    pictures, names = noise_with_names, noise_with_names.captions
    monkeypatch.setattr(clip, "RECIPE", replace(clip.RECIPE, batch_size=len(names)))
    embeddings = np.random.default_rng(0).normal(size=(600, SENTENCE_WIDTH)).astype(np.float32)
    words = np.array([f"word {number}" for number in range(600 - len(names))])
    lesson = Lesson(
        Meanings(np.concatenate([words, names]), embeddings, len(words)),
        tokenizer,
        torch.device("cpu"),
    )
    torch.manual_seed(0)
    return ClipTask(pictures, pictures, lesson, build_student(), tokenizer, torch.device("cpu"))


def test_a_step_teaches_both_towers_and_the_probe(task: ClipTask) -> None:
    state = TrainingState(task, clip.RECIPE)
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    state.update(task.loss(torch.Generator().manual_seed(0)))
    changed = {
        name.split(".")[0]
        for name, value in task.model.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert changed == {"visual", "text", "probe", "logit_scale"}


def test_the_loss_is_of_pictures_and_of_meanings(
    task: ClipTask, noise_with_names: Pictures
) -> None:
    """Random towers guess: ln of the batch for the pictures; unrelated embeddings: a cosine near 0."""
    task.model.logit_scale.data.zero_()
    loss = task.loss(torch.Generator().manual_seed(0)).item()
    assert loss == pytest.approx(np.log(len(noise_with_names)) + 1, abs=0.3)
