"""Checkpoints of the starter models: their metadata, and whether training may resume from them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from curate.run.schema import UserError
from workflows.starter.recipe import Recipe

NAME = "checkpoint.safetensors"
EMA_PREFIX = "ema/"  # prefix of the averaged weights' names


@dataclass(frozen=True, slots=True)
class Metadata:
    """A checkpoint's metadata.

    Attributes:
        step: optimizer steps taken.
        recipe: the fields of the recipe that it was trained with.
        inputs: sha256 of each file that it was trained from, by name.
    """

    step: int
    recipe: dict[str, Any]
    inputs: dict[str, str]


def encode_metadata(step: int, recipe: Recipe, inputs: Mapping[str, str]) -> dict[str, str]:
    """The metadata as strings, as safetensors requires; `read_metadata` reverses it."""
    return {
        "step": str(step),
        "recipe": json.dumps(asdict(recipe)),
        "made_from": json.dumps(dict(inputs)),
    }


def read_metadata(path: Path) -> Metadata:
    """Read a checkpoint's metadata.

    Raises:
        UserError: a field is missing.
    """
    with safe_open(path, framework="pt") as file:
        fields = file.metadata()
    try:
        return Metadata(
            int(fields["step"]), json.loads(fields["recipe"]), json.loads(fields["made_from"])
        )
    except KeyError as missing:
        raise UserError(
            f"{path} was written by an earlier version: its metadata lacks {missing}; move "
            f"{path.parent} away to train it again"
        ) from missing


def is_finished(path: Path, recipe: Recipe) -> bool:
    """Whether a checkpoint is the last one of ``recipe``."""
    metadata = read_metadata(path)
    return metadata.step == recipe.steps and not _changed(metadata, recipe)


def check_resumable(path: Path, recipe: Recipe, inputs: Mapping[str, str]) -> None:
    """Raise a `UserError` if resuming would not give the same weights as an uninterrupted run of ``recipe``.

    The number of steps may change as long as neither the old nor the new cooldown has started.
    """
    check_inputs(path, inputs)
    check_recipe(path, recipe)


def check_recipe(path: Path, recipe: Recipe) -> None:
    """Raise a `UserError` if a checkpoint's recipe differs; see `check_resumable` for changed steps."""
    if changed := _changed(read_metadata(path), recipe):
        raise UserError(
            f"{path} was trained with another {', '.join(changed)} than the recipe has now; restore that "
            f"recipe, or move {path.parent} away to train it again"
        )


def _changed(metadata: Metadata, recipe: Recipe) -> list[str]:
    """The recipe fields that differ, except those that had no effect up to the checkpoint's step."""
    then, now = metadata.recipe, asdict(recipe)
    names = [name for name in {**now, **then} if name != "measure_every"]
    changed = [name for name in names if then.get(name) != now.get(name)]
    if changed == ["steps"] and metadata.step <= min(
        Recipe(**then).cooldown_start, recipe.cooldown_start
    ):
        return []
    return changed


def check_inputs(path: Path, now: Mapping[str, str]) -> None:
    """Raise a `UserError` if a checkpoint was trained from other files than there are ``now``."""
    then = read_metadata(path).inputs
    changed = sorted(name for name in {*then, *now} if then.get(name) != now.get(name))
    if changed:
        raise UserError(
            f"{path} was trained from another {', '.join(changed)} than there is now; restore it, "
            f"or move {path.parent} away to train it again"
        )


def ema_weights(path: Path) -> dict[str, Tensor]:
    """The averaged weights of a checkpoint, by name."""
    with safe_open(path, framework="pt") as file:
        names = [key for key in file.keys() if key.startswith(EMA_PREFIX)]  # noqa: SIM118 (is no dict)
        return {name.removeprefix(EMA_PREFIX): file.get_tensor(name) for name in names}
