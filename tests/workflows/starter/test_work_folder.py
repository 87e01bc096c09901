"""The work folder: stages stand on finished ones that have not changed since."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from curate.run.cli import UserError
from workflows.starter import checkpoint, workshop
from workflows.starter.recipe import Recipe
from workflows.starter.workshop import Workshop

RECIPE = Recipe(steps=2, batch_size=1, learning_rate=0.1, warmup_steps=1, measure_every=1)


@pytest.fixture(autouse=True)
def recipes(monkeypatch: pytest.MonkeyPatch) -> dict[str, Recipe]:
    """The same two steps for every stage."""
    short = dict.fromkeys(workshop.RECIPES, RECIPE)
    monkeypatch.setattr(workshop, "RECIPES", short)
    return short


def layer() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(2, 2)


class Drift:
    """Weights that drift away from where they begin."""

    def __init__(self, rate: float) -> None:
        self.model = layer()
        self.rate = rate

    def parameter_groups(self) -> list[dict]:
        return [{"params": list(self.model.parameters())}]

    def loss(self, generator: torch.Generator) -> Tensor:
        return self.rate * self.model(torch.ones(1, 2)).sum()

    def measure(self, model: nn.Module) -> dict[str, float]:
        return {}


def shop(folder: Path) -> Workshop:
    return Workshop(folder, torch.device("cpu"))


def train(folder: Path, stage: str, upstream: str = "", rate: float = 1.0) -> None:
    """A stage that may stand on another one."""
    some = shop(folder)

    def make_task() -> Drift:
        if upstream:
            some.trained(upstream, layer)
        return Drift(rate)

    some.train(stage, make_task)


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    """``unet`` stands on ``vae``, which stands on ``meaning``."""
    train(tmp_path, "meaning")
    train(tmp_path, "vae", "meaning")
    train(tmp_path, "unet", "vae")
    return tmp_path


def test_a_stage_says_what_it_stands_on(chain: Path) -> None:
    said = checkpoint.told(chain / "unet" / checkpoint.NAME)
    assert list(said.made_from) == ["vae/checkpoint.safetensors"]
    some = shop(chain)
    some.trained("unet", layer)
    assert list(some.used) == ["unet/checkpoint.safetensors"]


def test_a_finished_stage_is_not_made_again(chain: Path, capsys: pytest.CaptureFixture) -> None:
    def never() -> Drift:
        raise AssertionError

    shop(chain).train("unet", never)
    assert "unet: trained already" in capsys.readouterr().out


@pytest.mark.parametrize("stage", ["vae", "meaning"])
def test_a_stage_is_refused_once_what_it_stands_on_has_changed(chain: Path, stage: str) -> None:
    (chain / stage / checkpoint.NAME).unlink()
    train(chain, stage, "meaning" if stage == "vae" else "", rate=-1.0)
    with pytest.raises(UserError, match=f"another {stage}/checkpoint"):
        shop(chain).trained("unet", layer)


def test_a_stage_of_another_recipe_is_not_stood_on(chain: Path, recipes: dict[str, Recipe]) -> None:
    recipes["vae"] = replace(RECIPE, measure_every=2)  # changes nothing
    shop(chain).trained("unet", layer)
    recipes["vae"] = replace(RECIPE, learning_rate=0.2)
    with pytest.raises(UserError, match=r"vae/checkpoint.*another learning_rate than the recipe"):
        shop(chain).trained("unet", layer)
    recipes["vae"] = replace(RECIPE, steps=4, cooldown_share=0.0)
    with pytest.raises(UserError, match=r"vae/checkpoint.*another steps, cooldown_share"):
        shop(chain).trained("vae", layer)


def test_a_stage_that_may_go_on_is_not_finished(tmp_path: Path, recipes: dict[str, Recipe]) -> None:
    recipes["vae"] = replace(RECIPE, cooldown_share=0.0)
    train(tmp_path, "vae")
    recipes["vae"] = replace(recipes["vae"], steps=4)
    with pytest.raises(UserError, match=r"vae/checkpoint.* is at step 2 of 4; run"):
        shop(tmp_path).trained("vae", layer)


def test_what_is_gone_is_not_missed(chain: Path) -> None:
    (chain / "meaning" / checkpoint.NAME).unlink()
    shop(chain).trained("unet", layer)


def test_a_stage_that_is_missing_or_unfinished_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is missing; run `python -m workflows\.starter vae "):
        shop(tmp_path).trained("vae", layer)

    class Killed(Drift):
        def loss(self, generator: torch.Generator) -> Tensor:
            if (tmp_path / "vae" / checkpoint.NAME).exists():
                raise KeyboardInterrupt
            return super().loss(generator)

    with pytest.raises(KeyboardInterrupt):
        shop(tmp_path).train("vae", lambda: Killed(1.0))
    with pytest.raises(
        UserError, match=r"is at step 1 of 2; run `python -m workflows\.starter vae "
    ):
        shop(tmp_path).trained("vae", layer)
    train(tmp_path, "vae")
    shop(tmp_path).trained("vae", layer)
