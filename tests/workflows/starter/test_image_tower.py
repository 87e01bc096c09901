"""The image tower's training with a frozen text tower, on random pictures with names."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from workflows.starter import emoji_batches, image_tower
from workflows.starter.architecture import build_student, encode_text, tokenize
from workflows.starter.emoji_sets import Pictures
from workflows.starter.image_tower import ImageTowerTask
from workflows.starter.loop import TrainingState


@pytest.fixture
def task(noise_with_names: Pictures, tokenizer, monkeypatch: pytest.MonkeyPatch) -> ImageTowerTask:
    some = noise_with_names
    aliased = replace(some, aliases=np.array(["", "star|day star", "", "", "", ""][: len(some)]))
    monkeypatch.setattr(image_tower, "RECIPE", replace(image_tower.RECIPE, batch_size=len(some)))
    torch.manual_seed(0)
    return ImageTowerTask(aliased, aliased, build_student(), tokenizer, torch.device("cpu"))


def test_a_step_does_not_change_the_text_tower(task: ImageTowerTask) -> None:
    state = TrainingState(task, image_tower.RECIPE)
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    state.update(task.loss(torch.Generator().manual_seed(0)))
    changed = {
        name.split(".")[0]
        for name, value in task.model.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert changed == {"visual", "logit_scale"}


def test_every_name_has_the_embedding_of_its_text(task: ImageTowerTask, tokenizer) -> None:
    names = [name for some in task.pictures.names() for name in some]
    with torch.no_grad():
        wanted = encode_text(task.model, tokenize(tokenizer, names))
    torch.testing.assert_close(task.names, wanted)
    own = task.names[task.name_sampler.first]
    torch.testing.assert_close(own, task.captions[task.caption_of])


@pytest.mark.parametrize("alias_share", [0.0, 1.0], ids=["caption", "any name"])
def test_the_loss_is_cross_entropy_over_all_captions(
    task: ImageTowerTask, alias_share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compared with the closed form; with aliases, the same random draws are repeated here."""
    monkeypatch.setattr(emoji_batches, "ALIAS_SHARE", alias_share)
    monkeypatch.setattr(task.sampler, "draw", lambda count, generator: torch.arange(count))
    width = task.captions.shape[1]
    counts = task.name_sampler.counts
    seen = F.normalize(torch.randn(len(counts), width), dim=1)
    task.model.encode_image = lambda images, normalize: seen
    scale = task.model.logit_scale.exp().item()
    picks = torch.Generator().manual_seed(3)
    monkeypatch.setattr(image_tower, "augment", lambda images, generator: images)
    monkeypatch.setattr(image_tower, "coarsen", lambda images, generator: images)
    torch.rand(len(seen), generator=picks)  # whether a name is drawn
    drawn = (torch.rand(len(seen), generator=picks) * counts).long()
    name_of = task.name_sampler.first + (drawn if alias_share else 0)
    expected = []
    for row, embedding in enumerate(seen):
        logits = scale * task.captions @ embedding
        target = int(task.caption_of[row])
        logits[target] = scale * task.names[name_of[row]] @ embedding
        expected.append(logits.logsumexp(0) - logits[target])
    loss = task.loss(torch.Generator().manual_seed(3))
    torch.testing.assert_close(loss, torch.stack(expected).mean())
