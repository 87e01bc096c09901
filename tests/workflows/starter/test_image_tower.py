"""The last lesson of the image tower, on noise with names."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from workflows.starter import image_tower
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


def test_a_step_leaves_the_text_tower_as_it_is(task: ImageTowerTask) -> None:
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
    own = task.names[task.first]
    torch.testing.assert_close(own, task.captions[task.caption_of])


def test_the_loss_is_that_of_a_guess_among_all_captions(task: ImageTowerTask) -> None:
    task.model.logit_scale.data.zero_()
    loss = task.loss(torch.Generator().manual_seed(0)).item()
    assert loss == pytest.approx(np.log(len(task.captions)), abs=0.3)
