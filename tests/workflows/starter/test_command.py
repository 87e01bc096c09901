"""The command: its arguments, and what it says when a stage is missing."""

from pathlib import Path

import pytest
import torch
from torch import nn

from curate.command import UserError
from workflows.starter import __main__ as starter
from workflows.starter.architecture import build_clip
from workflows.starter.loop import Recipe, TrainingState


def test_every_stage_is_a_choice() -> None:
    assert list(starter.STAGES) == [
        *("meaning", "clip", "image", "vae", "unet", "export", "measure"),
    ]
    assert starter.parse_arguments([]).stage == "all"
    assert starter.parse_arguments(["vae", "--threads", "1"]).threads == 1
    with pytest.raises(SystemExit):
        starter.parse_arguments(["wae"])


def test_a_missing_stage_says_what_to_run(tmp_path: Path) -> None:
    shop = starter.Workshop(tmp_path, torch.device("cpu"))
    with pytest.raises(UserError, match=r"workflows\.starter clip"):
        shop.trained("clip", build_clip)


class _Nothing:
    """A task that only has weights."""

    def __init__(self) -> None:
        self.model = nn.Linear(2, 2)

    def parameter_groups(self) -> list[dict]:
        return [{"params": list(self.model.parameters())}]


def test_a_stage_is_refused_once_what_it_stands_on_has_changed(tmp_path: Path) -> None:
    shop = starter.Workshop(tmp_path, torch.device("cpu"))
    for stage in ("vae", "unet"):
        (tmp_path / stage).mkdir()
        state = TrainingState(_Nothing(), Recipe(steps=1, batch_size=1, learning_rate=0.1))
        state.save(tmp_path / stage / starter.CHECKPOINT, shop.used)
        shop.trained(stage, lambda: nn.Linear(2, 2))
    assert list(shop.used) == ["vae/checkpoint.safetensors", "unet/checkpoint.safetensors"]
    other = TrainingState(_Nothing(), Recipe(steps=1, batch_size=1, learning_rate=0.1))
    other.save(tmp_path / "vae" / starter.CHECKPOINT, {})
    with pytest.raises(UserError, match=r"another vae/checkpoint\.safetensors"):
        shop.trained("unet", lambda: nn.Linear(2, 2))
