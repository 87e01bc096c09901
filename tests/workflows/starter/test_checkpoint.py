"""A checkpoint's metadata, and when training may resume from it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from curate.run.schema import UserError
from workflows.starter import checkpoint
from workflows.starter.recipe import Recipe

RECIPE = Recipe(steps=100, batch_size=8, learning_rate=1e-2, cooldown_share=0.5)
INPUTS = {"pictures.npz": "a" * 64, "vae/checkpoint.safetensors": "b" * 64}


def write(folder: Path, step: int) -> Path:
    path = folder / checkpoint.NAME
    weights = {"model/weight": torch.zeros(2), f"{checkpoint.EMA_PREFIX}weight": torch.ones(2)}
    save_file(weights, path, checkpoint.encode_metadata(step, RECIPE, INPUTS))
    return path


def test_metadata_is_read_as_written(tmp_path: Path) -> None:
    path = write(tmp_path, 7)
    metadata = checkpoint.read_metadata(path)
    assert (metadata.step, metadata.inputs, Recipe(**metadata.recipe)) == (7, INPUTS, RECIPE)
    assert {name: value.tolist() for name, value in checkpoint.ema_weights(path).items()} == {
        "weight": [1, 1]
    }


def test_missing_metadata_is_an_error(tmp_path: Path) -> None:
    save_file({"model/weight": torch.zeros(2)}, tmp_path / checkpoint.NAME, {"step": "3"})
    with pytest.raises(UserError, match=f"lacks 'recipe'; move {tmp_path} away"):
        checkpoint.read_metadata(tmp_path / checkpoint.NAME)


@pytest.mark.parametrize(
    "now",
    [
        INPUTS | {"pictures.npz": "c" * 64},
        {"vae/checkpoint.safetensors": "b" * 64},
        INPUTS | {"clip/checkpoint.safetensors": "d" * 64},
    ],
    ids=["changed", "gone", "more"],
)
def test_changed_inputs_are_named(tmp_path: Path, now: dict[str, str]) -> None:
    path = write(tmp_path, 7)
    checkpoint.check_resumable(path, RECIPE, INPUTS)
    (name,) = {key for key in now | INPUTS if now.get(key) != INPUTS.get(key)}
    with pytest.raises(UserError, match=f"trained from another {name} .* move {tmp_path} away"):
        checkpoint.check_resumable(path, RECIPE, now)


@pytest.mark.parametrize(("name", "value"), [("seed", 1), ("batch_size", 9), ("ema_decay", 0.5)])
def test_changed_recipe_fields_are_named(tmp_path: Path, name: str, value: float) -> None:
    path = write(tmp_path, 7)
    checkpoint.check_resumable(path, replace(RECIPE, measure_every=3), INPUTS)
    with pytest.raises(UserError, match=f"with another {name} than the recipe has now"):
        checkpoint.check_resumable(path, replace(RECIPE, **{name: value}), INPUTS)


@pytest.mark.parametrize(
    ("step", "steps", "may"),
    [(50, 200, True), (51, 200, False), (40, 80, True), (41, 80, False), (99, 100, True)],
)
def test_steps_may_change_until_the_cooldown_of_either(
    tmp_path: Path, step: int, steps: int, may: bool
) -> None:
    path = write(tmp_path, step)
    if may:
        checkpoint.check_resumable(path, replace(RECIPE, steps=steps), INPUTS)
    else:
        with pytest.raises(UserError, match="with another steps"):
            checkpoint.check_resumable(path, replace(RECIPE, steps=steps), INPUTS)


def test_a_checkpoint_is_finished_at_the_last_step_of_its_recipe(tmp_path: Path) -> None:
    assert not checkpoint.is_finished(write(tmp_path, 99), RECIPE)
    path = write(tmp_path, 100)
    assert checkpoint.is_finished(path, RECIPE)
    assert not checkpoint.is_finished(path, replace(RECIPE, steps=120))
    assert not checkpoint.is_finished(path, replace(RECIPE, seed=5))
    assert checkpoint.is_finished(path, replace(RECIPE, measure_every=7))


def test_a_recipe_shortened_before_the_cooldown_is_finished(tmp_path: Path) -> None:
    """Without a cooldown, the first fifty of a hundred steps equal a recipe of fifty steps."""
    whole, first = (replace(RECIPE, steps=steps, cooldown_share=0.0) for steps in (100, 50))
    path = tmp_path / checkpoint.NAME
    save_file({}, path, checkpoint.encode_metadata(50, whole, INPUTS))
    assert checkpoint.is_finished(path, first)
    checkpoint.check_recipe(path, first)
    assert not checkpoint.is_finished(path, whole)


def test_a_removed_recipe_field_counts_as_changed(tmp_path: Path) -> None:
    metadata = checkpoint.encode_metadata(100, RECIPE, INPUTS)
    metadata["recipe"] = json.dumps(
        json.loads(metadata["recipe"]) | {"momentum": 0.9, "steps": 100}
    )
    path = tmp_path / checkpoint.NAME
    save_file({}, path, metadata)
    assert not checkpoint.is_finished(path, RECIPE)
    with pytest.raises(UserError, match="another steps, momentum than"):
        checkpoint.check_recipe(path, replace(RECIPE, steps=120))
