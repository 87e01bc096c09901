"""Checkpoints of the starter models: what a file says of itself, and whether it may be gone on with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from curate.run.cli import UserError
from workflows.starter.recipe import Recipe

NAME = "checkpoint.safetensors"
AVERAGE = "ema/"  # begins the names of averaged weights


@dataclass(frozen=True, slots=True)
class Told:
    """A checkpoint's metadata.

    Attributes:
        step: optimizer steps made.
        recipe: the fields of the recipe that it was trained by.
        made_from: sha256 of each file that the task was made from, by name.
    """

    step: int
    recipe: dict[str, Any]
    made_from: dict[str, str]


def metadata(step: int, recipe: Recipe, made_from: Mapping[str, str]) -> dict[str, str]:
    """What `told` reads, as safetensors has it."""
    return {
        "step": str(step),
        "recipe": json.dumps(asdict(recipe)),
        "made_from": json.dumps(dict(made_from)),
    }


def told(path: Path) -> Told:
    """What a checkpoint says of itself.

    Raises:
        UserError: it does not say what it was made from.
    """
    with safe_open(path, framework="pt") as file:
        said = file.metadata()
    try:
        return Told(int(said["step"]), json.loads(said["recipe"]), json.loads(said["made_from"]))
    except KeyError as missing:
        raise UserError(
            f"{path} lacks {missing} in its metadata, as an earlier version wrote it; move "
            f"{path.parent} away to train it anew"
        ) from missing


def is_finished(path: Path, recipe: Recipe) -> bool:
    """Whether a checkpoint is the last one of ``recipe``."""
    said = told(path)
    return said.step == recipe.steps and not _changed(said, recipe)


def check_resumable(path: Path, recipe: Recipe, made_from: Mapping[str, str]) -> None:
    """Raise a `UserError` if going on would not end where an uninterrupted run of ``recipe`` does.

    The number of steps may change until the learning rate begins to fall, by the old one or the new.
    """
    check_same(path, made_from)
    check_recipe(path, recipe)


def check_recipe(path: Path, recipe: Recipe) -> None:
    """Raise a `UserError` if a checkpoint is of another recipe; see `check_resumable` for the steps."""
    if changed := _changed(told(path), recipe):
        raise UserError(
            f"{path} was trained with another {', '.join(changed)} than the recipe has now; bring that "
            f"recipe back, or move {path.parent} away to train it anew"
        )


def _changed(said: Told, recipe: Recipe) -> list[str]:
    """The fields by which a checkpoint's recipe differs, but for those that changed nothing so far."""
    then, now = said.recipe, asdict(recipe)
    names = [name for name in {**now, **then} if name != "measure_every"]
    changed = [name for name in names if then.get(name) != now.get(name)]
    if changed == ["steps"] and said.step <= min(Recipe(**then).hot_steps, recipe.hot_steps):
        return []
    return changed


def check_same(path: Path, now: Mapping[str, str]) -> None:
    """Raise a `UserError` if a checkpoint stands on other files than there are ``now``."""
    then = told(path).made_from
    changed = sorted(name for name in {*then, *now} if then.get(name) != now.get(name))
    if changed:
        raise UserError(
            f"{path} was trained on another {', '.join(changed)} than there is now; bring that back, "
            f"or move {path.parent} away to train it anew"
        )


def average(path: Path) -> dict[str, Tensor]:
    """The averaged weights of a checkpoint, by name."""
    with safe_open(path, framework="pt") as file:
        names = [key for key in file.keys() if key.startswith(AVERAGE)]  # noqa: SIM118 (is no dict)
        return {name.removeprefix(AVERAGE): file.get_tensor(name) for name in names}
