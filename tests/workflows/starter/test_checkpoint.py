"""What a checkpoint says of itself, and when it may be gone on with."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from curate.run.cli import UserError
from workflows.starter import checkpoint
from workflows.starter.recipe import Recipe

RECIPE = Recipe(steps=100, batch_size=8, learning_rate=1e-2, cooldown_share=0.5)
MADE_FROM = {"pictures.npz": "a" * 64, "vae/checkpoint.safetensors": "b" * 64}


def write(folder: Path, step: int) -> Path:
    path = folder / checkpoint.NAME
    weights = {"model/weight": torch.zeros(2), f"{checkpoint.AVERAGE}weight": torch.ones(2)}
    save_file(weights, path, checkpoint.metadata(step, RECIPE, MADE_FROM))
    return path


def test_it_says_what_was_written(tmp_path: Path) -> None:
    path = write(tmp_path, 7)
    said = checkpoint.told(path)
    assert (said.step, said.made_from, Recipe(**said.recipe)) == (7, MADE_FROM, RECIPE)
    assert {name: value.tolist() for name, value in checkpoint.average(path).items()} == {
        "weight": [1, 1]
    }


def test_one_that_says_nothing_is_refused(tmp_path: Path) -> None:
    save_file({"model/weight": torch.zeros(2)}, tmp_path / checkpoint.NAME, {"step": "3"})
    with pytest.raises(UserError, match=f"lacks 'recipe' .* move {tmp_path} away"):
        checkpoint.told(tmp_path / checkpoint.NAME)


@pytest.mark.parametrize(
    "now",
    [
        MADE_FROM | {"pictures.npz": "c" * 64},
        {"vae/checkpoint.safetensors": "b" * 64},
        MADE_FROM | {"clip/checkpoint.safetensors": "d" * 64},
    ],
    ids=["changed", "gone", "more"],
)
def test_other_files_than_it_was_made_from_are_named(tmp_path: Path, now: dict[str, str]) -> None:
    path = write(tmp_path, 7)
    checkpoint.check_resumable(path, RECIPE, MADE_FROM)
    (name,) = {key for key in now | MADE_FROM if now.get(key) != MADE_FROM.get(key)}
    with pytest.raises(UserError, match=f"trained on another {name} .* move {tmp_path} away"):
        checkpoint.check_resumable(path, RECIPE, now)


@pytest.mark.parametrize(("name", "value"), [("seed", 1), ("batch_size", 9), ("ema_decay", 0.5)])
def test_another_recipe_is_named(tmp_path: Path, name: str, value: float) -> None:
    path = write(tmp_path, 7)
    checkpoint.check_resumable(path, replace(RECIPE, measure_every=3), MADE_FROM)
    with pytest.raises(UserError, match=f"with another {name} than the recipe has now"):
        checkpoint.check_resumable(path, replace(RECIPE, **{name: value}), MADE_FROM)


@pytest.mark.parametrize(
    ("step", "steps", "may"),
    [(50, 200, True), (51, 200, False), (40, 80, True), (41, 80, False), (99, 100, True)],
)
def test_steps_may_change_until_the_cooldown_of_either(
    tmp_path: Path, step: int, steps: int, may: bool
) -> None:
    path = write(tmp_path, step)
    if may:
        checkpoint.check_resumable(path, replace(RECIPE, steps=steps), MADE_FROM)
    else:
        with pytest.raises(UserError, match="with another steps"):
            checkpoint.check_resumable(path, replace(RECIPE, steps=steps), MADE_FROM)


def test_finished_is_at_the_end_of_this_recipe(tmp_path: Path) -> None:
    assert not checkpoint.is_finished(write(tmp_path, 99), RECIPE)
    path = write(tmp_path, 100)
    assert checkpoint.is_finished(path, RECIPE)
    assert not checkpoint.is_finished(path, replace(RECIPE, steps=120))
    assert not checkpoint.is_finished(path, replace(RECIPE, seed=5))
    assert checkpoint.is_finished(path, replace(RECIPE, measure_every=7))


def test_one_that_was_cut_short_while_hot_is_finished(tmp_path: Path) -> None:
    """Of a hundred steps the first fifty are hot: they are those of a recipe that ends there, hot."""
    whole, first = (replace(RECIPE, steps=steps, cooldown_share=0.0) for steps in (100, 50))
    path = tmp_path / checkpoint.NAME
    save_file({}, path, checkpoint.metadata(50, whole, MADE_FROM))
    assert checkpoint.is_finished(path, first)
    checkpoint.check_recipe(path, first)
    assert not checkpoint.is_finished(path, whole)


def test_a_field_that_recipes_no_longer_have_is_another_recipe(tmp_path: Path) -> None:
    said = checkpoint.metadata(100, RECIPE, MADE_FROM)
    said["recipe"] = json.dumps(json.loads(said["recipe"]) | {"momentum": 0.9, "steps": 100})
    path = tmp_path / checkpoint.NAME
    save_file({}, path, said)
    assert not checkpoint.is_finished(path, RECIPE)
    with pytest.raises(UserError, match="another steps, momentum than"):
        checkpoint.check_recipe(path, replace(RECIPE, steps=120))
