"""The distillation: which texts are drawn, which are held out, and that training reduces the loss."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from workflows.starter import meaning
from workflows.starter.architecture import build_student, encode_text
from workflows.starter.loop import TrainingState
from workflows.starter.meaning import HELD_OUT_WORDS, Distillation, MeaningTask
from workflows.starter.pretrained import SENTENCE_WIDTH, TextEmbeddings
from workflows.starter.tokenizer import load_tokenizer

CPU = torch.device("cpu")
WORDS = HELD_OUT_WORDS + 4


@pytest.fixture(scope="module")
def distillation(tmp_path_factory: pytest.TempPathFactory) -> Distillation:
    names = ["red ox", "old key"]
    rng = np.random.default_rng(0)
    return Distillation(
        TextEmbeddings(
            np.array([f"w{number}" for number in range(WORDS)] + names),
            rng.normal(size=(WORDS + len(names), SENTENCE_WIDTH)).astype(np.float32),
            WORDS,
        ),
        load_tokenizer(tmp_path_factory.mktemp("tokenizer")),
        CPU,
    )


def test_held_out_words_are_never_drawn(distillation: Distillation) -> None:
    parts = [
        distillation.held_out.tolist(),
        distillation.words.tolist(),
        distillation.names.tolist(),
    ]
    assert [len(part) for part in parts] == [HELD_OUT_WORDS, 4, 2]
    assert sorted(itertools.chain(*parts)) == list(range(WORDS + 2))


@torch.inference_mode()
def test_the_metric_is_the_cosine_on_held_out_words(distillation: Distillation) -> None:
    torch.manual_seed(0)
    student = build_student().eval()
    found = student.probe(encode_text(student, distillation.tokens[distillation.held_out]))
    target = F.normalize(distillation.embeddings[distillation.held_out], dim=-1)
    expected = (F.normalize(found, dim=-1) * target).sum(-1).mean().item()
    assert distillation.measure(student)["cosine_unseen_words"] == pytest.approx(expected, abs=1e-6)


def test_the_loss_falls_and_the_image_tower_does_not_change(
    distillation: Distillation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meaning, "RECIPE", replace(meaning.RECIPE, batch_size=16, warmup_steps=1))
    task = MeaningTask(distillation, CPU)
    trunk = {name: value.clone() for name, value in task.model.visual.state_dict().items()}
    state = TrainingState(task, meaning.RECIPE)
    losses = []
    for step in range(30):
        loss = task.loss(torch.Generator().manual_seed(step))
        state.update(loss)
        losses.append(loss.item())
    assert losses[0] > 0.9
    assert losses[-1] < 0.5
    assert all(torch.equal(value, trunk[n]) for n, value in task.model.visual.state_dict().items())
