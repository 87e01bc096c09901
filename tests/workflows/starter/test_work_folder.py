"""The work folder: a stage uses only finished stages that have not changed since."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from curate.run.schema import UserError
from workflows.starter import checkpoint, work_folder
from workflows.starter.recipe import Recipe
from workflows.starter.work_folder import WorkFolder

RECIPE = Recipe(steps=2, batch_size=1, learning_rate=0.1, warmup_steps=1, measure_every=1)


@pytest.fixture(autouse=True)
def recipes(monkeypatch: pytest.MonkeyPatch) -> dict[str, Recipe]:
    """The same two-step recipe for every stage."""
    short = dict.fromkeys(work_folder.RECIPES, RECIPE)
    monkeypatch.setattr(work_folder, "RECIPES", short)
    return short


def layer() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(2, 2)


class Drift:
    """Moves its weights by a constant gradient."""

    def __init__(self, rate: float) -> None:
        self.model = layer()
        self.rate = rate

    def parameter_groups(self) -> list[dict]:
        return [{"params": list(self.model.parameters())}]

    def loss(self, generator: torch.Generator) -> Tensor:
        return self.rate * self.model(torch.ones(1, 2)).sum()

    def measure(self, model: nn.Module) -> dict[str, float]:
        return {}


def open_folder(folder: Path) -> WorkFolder:
    return WorkFolder(folder, torch.device("cpu"))


def train(folder: Path, stage: str, upstream: str = "", rate: float = 1.0) -> None:
    """Train a stage, which may load an upstream stage."""
    work = open_folder(folder)

    def make_task() -> Drift:
        if upstream:
            work.trained(upstream, layer)
        return Drift(rate)

    work.train(stage, make_task)


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    """``unet`` was trained from ``vae``, and ``vae`` from ``meaning``."""
    train(tmp_path, "meaning")
    train(tmp_path, "vae", "meaning")
    train(tmp_path, "unet", "vae")
    return tmp_path


def test_a_checkpoint_records_its_inputs(chain: Path) -> None:
    metadata = checkpoint.read_metadata(chain / "unet" / checkpoint.NAME)
    assert list(metadata.inputs) == ["vae/checkpoint.safetensors"]
    work = open_folder(chain)
    work.trained("unet", layer)
    assert list(work.inputs) == ["unet/checkpoint.safetensors"]


def test_a_finished_stage_is_not_trained_again(chain: Path, capsys: pytest.CaptureFixture) -> None:
    def never() -> Drift:
        raise AssertionError

    open_folder(chain).train("unet", never)
    assert "unet: already trained" in capsys.readouterr().out


@pytest.mark.parametrize("stage", ["vae", "meaning"])
def test_a_stage_is_refused_after_its_inputs_changed(chain: Path, stage: str) -> None:
    (chain / stage / checkpoint.NAME).unlink()
    train(chain, stage, "meaning" if stage == "vae" else "", rate=-1.0)
    with pytest.raises(UserError, match=f"another {stage}/checkpoint"):
        open_folder(chain).trained("unet", layer)


def test_a_stage_is_refused_after_its_recipe_changed(
    chain: Path, recipes: dict[str, Recipe]
) -> None:
    recipes["vae"] = replace(RECIPE, measure_every=2)  # has no effect on the weights
    open_folder(chain).trained("unet", layer)
    recipes["vae"] = replace(RECIPE, learning_rate=0.2)
    with pytest.raises(UserError, match=r"vae/checkpoint.*another learning_rate than the recipe"):
        open_folder(chain).trained("unet", layer)
    recipes["vae"] = replace(RECIPE, steps=4, cooldown_share=0.0)
    with pytest.raises(UserError, match=r"vae/checkpoint.*another steps, cooldown_share"):
        open_folder(chain).trained("vae", layer)


def test_a_stage_with_fewer_steps_than_its_recipe_is_not_finished(
    tmp_path: Path, recipes: dict[str, Recipe]
) -> None:
    recipes["vae"] = replace(RECIPE, cooldown_share=0.0)
    train(tmp_path, "vae")
    recipes["vae"] = replace(recipes["vae"], steps=4)
    with pytest.raises(UserError, match=r"vae/checkpoint.* is at step 2 of 4; run"):
        open_folder(tmp_path).trained("vae", layer)


def test_a_deleted_input_is_not_checked(chain: Path) -> None:
    (chain / "meaning" / checkpoint.NAME).unlink()
    open_folder(chain).trained("unet", layer)


def test_the_error_for_a_missing_or_unfinished_stage_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is missing; run `python -m workflows\.starter vae "):
        open_folder(tmp_path).trained("vae", layer)

    class Killed(Drift):
        def loss(self, generator: torch.Generator) -> Tensor:
            if (tmp_path / "vae" / checkpoint.NAME).exists():
                raise KeyboardInterrupt
            return super().loss(generator)

    with pytest.raises(KeyboardInterrupt):
        open_folder(tmp_path).train("vae", lambda: Killed(1.0))
    with pytest.raises(
        UserError, match=r"is at step 1 of 2; run `python -m workflows\.starter vae "
    ):
        open_folder(tmp_path).trained("vae", layer)
    train(tmp_path, "vae")
    open_folder(tmp_path).trained("vae", layer)
