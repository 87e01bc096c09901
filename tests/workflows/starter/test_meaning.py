"""The lesson before the pictures: what is drawn, what is held out, and that it can be learned."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from workflows.starter import meaning
from workflows.starter.architecture import build_student, encode_text
from workflows.starter.loop import TrainingState
from workflows.starter.meaning import HELD_OUT_WORDS, Lesson, MeaningTask
from workflows.starter.pretrained import SENTENCE_WIDTH, Meanings
from workflows.starter.tokenizer import load_tokenizer

CPU = torch.device("cpu")
WORDS = HELD_OUT_WORDS + 4


@pytest.fixture(scope="module")
def lesson(tmp_path_factory: pytest.TempPathFactory) -> Lesson:
    names = ["red ox", "old key"]
    rng = np.random.default_rng(0)
    return Lesson(
        Meanings(
            np.array([f"w{number}" for number in range(WORDS)] + names),
            rng.normal(size=(WORDS + len(names), SENTENCE_WIDTH)).astype(np.float32),
            WORDS,
        ),
        load_tokenizer(tmp_path_factory.mktemp("tokenizer")),
        CPU,
    )


def test_held_out_words_are_never_drawn(lesson: Lesson) -> None:
    parts = [lesson.held_out.tolist(), lesson.words.tolist(), lesson.names.tolist()]
    assert [len(part) for part in parts] == [HELD_OUT_WORDS, 4, 2]
    assert sorted(itertools.chain(*parts)) == list(range(WORDS + 2))


@torch.inference_mode()
def test_the_measure_is_the_cosine_on_held_out_words(lesson: Lesson) -> None:
    torch.manual_seed(0)
    student = build_student().eval()
    found = student.probe(encode_text(student, lesson.tokens[lesson.held_out]))
    wanted = F.normalize(lesson.embeddings[lesson.held_out], dim=-1)
    expected = (F.normalize(found, dim=-1) * wanted).sum(-1).mean().item()
    assert lesson.measure(student)["cosine_unseen_words"] == pytest.approx(expected, abs=1e-6)


def test_a_few_words_are_learned_and_the_image_tower_stays(
    lesson: Lesson, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(meaning, "RECIPE", replace(meaning.RECIPE, batch_size=16, warmup_steps=1))
    task = MeaningTask(lesson, CPU)
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
