"""The starter CLIP's training step and metrics, on random pictures with names."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from workflows.starter import clip
from workflows.starter.architecture import build_student
from workflows.starter.clip import ClipTask
from workflows.starter.emoji_sets import Pictures, is_held_out
from workflows.starter.loop import TrainingState
from workflows.starter.meaning import Distillation
from workflows.starter.metrics import auc, kept_share, recall
from workflows.starter.pretrained import SENTENCE_WIDTH, TextEmbeddings


@pytest.fixture
def task(noise_with_names: Pictures, tokenizer, monkeypatch: pytest.MonkeyPatch) -> ClipTask:
    pictures, names = noise_with_names, noise_with_names.captions
    monkeypatch.setattr(clip, "RECIPE", replace(clip.RECIPE, batch_size=len(names)))
    embeddings = np.random.default_rng(0).normal(size=(600, SENTENCE_WIDTH)).astype(np.float32)
    words = np.array([f"word {number}" for number in range(600 - len(names))])
    distillation = Distillation(
        TextEmbeddings(np.concatenate([words, names]), embeddings, len(words)),
        tokenizer,
        torch.device("cpu"),
    )
    torch.manual_seed(0)
    return ClipTask(
        pictures, pictures, distillation, build_student(), tokenizer, torch.device("cpu")
    )


def test_a_step_trains_both_towers_and_the_probe(task: ClipTask) -> None:
    state = TrainingState(task, clip.RECIPE)
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    state.update(task.loss(torch.Generator().manual_seed(0)))
    changed = {
        name.split(".")[0]
        for name, value in task.model.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert changed == {"visual", "text", "probe", "logit_scale"}


def test_the_loss_is_contrastive_plus_distillation(
    task: ClipTask, noise_with_names: Pictures
) -> None:
    """Untrained towers: ln(batch size) for the contrast, and a cosine near 0 for the distillation."""
    task.model.logit_scale.data.zero_()
    loss = task.loss(torch.Generator().manual_seed(0)).item()
    assert loss == pytest.approx(np.log(len(noise_with_names)) + 1, abs=0.3)


def _named(names: list[str], concepts: list[str], sets: list[str]) -> Pictures:
    return Pictures(
        np.random.default_rng(0).integers(0, 256, (len(names), 8, 8, 3), dtype=np.uint8),
        *(np.array(column) for column in (names, concepts, sets)),
        np.array([""] * len(names)),
    )


def test_each_metric_is_over_its_own_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    things = [f"thing {number}" for number in range(100)]
    seen = [name for name in things if not is_held_out(name)][:12]
    unseen = [name for name in things if is_held_out(name)][:8]
    toned = [f"{name} dark skin tone" for name in seen[:6]]
    names, concepts = seen + unseen + toned, seen + unseen + seen[:6]
    openmoji = _named(names, concepts, ["openmoji"] * len(names))
    noto = _named(names * 2, concepts * 2, ["noto"] * len(names) + ["twemoji"] * len(names))
    generator = torch.Generator().manual_seed(0)
    similar = {
        count: torch.eye(count) + torch.randn((count, count), generator=generator)
        for count in (len(names), 2 * len(names))
    }

    def embed(_model, _tokenizer, pictures: Pictures):
        """Embeddings with the planted similarities; Noto's are the first of its matrix."""
        planted = similar[len(names) if pictures.sets[0] == "openmoji" else 2 * len(names)]
        return planted[: len(pictures), : len(pictures)], torch.eye(len(pictures))

    monkeypatch.setattr(clip, "embed", embed)
    model = torch.nn.Module()
    model.logit_scale = torch.nn.Parameter(torch.tensor(2.0))
    metrics = clip.clip_metrics(model, None, noto, openmoji)
    of_openmoji = similar[len(names)]
    of_noto = similar[2 * len(names)][: len(names), : len(names)]
    assert metrics == pytest.approx(
        {
            "logit_scale": np.exp(2.0),
            "auc_openmoji": auc(of_openmoji),
            "auc_openmoji_plain": auc(of_openmoji[:20, :20]),
            "auc_openmoji_unseen": auc(of_openmoji[12:20, 12:20]),
            "kept_openmoji_plain_at_1%": kept_share(of_openmoji[:20, :20], 0.01),
            "kept_openmoji_plain_at_5%": kept_share(of_openmoji[:20, :20], 0.05),
            "recall_openmoji_unseen": recall(of_openmoji[12:20, 12:20], 5),
            "auc_noto_unseen": auc(of_noto[12:20, 12:20]),
            "recall_noto": recall(of_noto[:20, :20], 5),
            "recall_noto_unseen": recall(of_noto[12:20, 12:20], 5),
            "openmoji_unseen_pictures": 8,
            "noto_pictures": 20,
            "noto_unseen_pictures": 8,
        }
    )


def test_embeddings_have_unit_length_and_do_not_depend_on_the_batch(
    task: ClipTask, noise_with_names: Pictures, tokenizer
) -> None:
    model = task.model.eval()
    images, texts = clip.embed(model, tokenizer, noise_with_names)
    torch.testing.assert_close(images.norm(dim=1), torch.ones(len(images)))
    torch.testing.assert_close(texts.norm(dim=1), torch.ones(len(texts)))
    image, text = clip.embed(model, tokenizer, noise_with_names.select(np.array([2])))
    torch.testing.assert_close(image, images[2:3], atol=1e-5, rtol=0)
    torch.testing.assert_close(text, texts[2:3], atol=1e-5, rtol=0)
