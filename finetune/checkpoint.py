"""Checkpoints: folders that appear only when complete, and the links to the best and the last one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from curate.run import checksums
from curate.run.files import read_json, write_certified
from curate.run.schema import UserError


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One stored state of a run. Step 0 is never stored: it is the base model.

    Attributes:
        step: optimizer updates made. samples_seen: samples they took.
        path: folder with ``weights.safetensors``, ``state.safetensors``, their ``checksums.json``,
            ``state.json``, which has a checksum in itself, and, where an average is kept,
            ``ema.safetensors``.
        heldout: mean relative held-out loss of the weights to export; None without held-out pairs, or
            where it was not finite.
    """

    step: int
    samples_seen: int
    path: Path
    heldout: float | None

    def weights(self, ema: bool = True) -> dict[str, Tensor]:
        """The trained weights by name, fp32, on the CPU; the average where there is one and ``ema``."""
        return load_file(self.weights_path(ema))

    def weights_path(self, ema: bool = True) -> Path:
        """The file that :meth:`weights` reads, checked."""
        averaged = ema and self._has("ema.safetensors")
        return self.checked("ema.safetensors" if averaged else "weights.safetensors")

    def _has(self, name: str) -> bool:
        listed = checksums.read(self.path)
        return (self.path / name).exists() if listed is None else name in listed.files

    def checked(self, name: str) -> Path:
        """The path of one of its files.

        Raises:
            UserError: that is not what training wrote; says what to do.
        """
        if not checksums.is_intact(self.path, name):
            raise damaged(self.path, name)
        return self.path / name

    def state(self) -> dict[str, Any]:
        """What ``state.json`` holds.

        Raises:
            UserError: it is damaged.
        """
        return _state(self.path)


def damaged(path: Path, name: str) -> UserError:
    """The error of a checkpoint in the folder ``path``, one of whose files is damaged."""
    return UserError(
        f"{path / name} is damaged, not what training wrote. Delete the folder {path}: the others stand "
        "for themselves; then train with the same command as before, which goes on from the last one "
        "and exports the best"
    )


def _state(path: Path) -> dict[str, Any]:
    """Of the checkpoint in this folder."""
    if (content := read_json(path / "state.json")) is None:
        raise damaged(path, "state.json")
    return content


def drop_damaged_end(finetune_dir: Path) -> list[str]:
    """Delete the last checkpoint as long as it is damaged: training makes it again from the one before.

    Returns:
        A line for each of them.
    """
    lines = []
    for path in sorted((finetune_dir / "checkpoints").glob("step-*"), reverse=True):
        names = checksums.damaged(path)
        if read_json(path / "state.json") is None:
            names.append("state.json")
        if not names:
            break
        remove_folder(path)
        lines.append(f"{path} was damaged ({', '.join(names)}); it is made again")
    return lines


def list_checkpoints(finetune_dir: Path) -> list[Checkpoint]:
    """All checkpoints of a run, the earliest first.

    Raises:
        UserError: the ``state.json`` of one is damaged.
    """
    found = []
    for path in sorted((finetune_dir / "checkpoints").glob("step-*")):
        state = _state(path)
        found.append(Checkpoint(state["step"], state["samples_seen"], path, state["heldout"]))
    return found


def best_of(checkpoints: list[Checkpoint]) -> Checkpoint:
    """The one with the lowest held-out loss, the earlier of two; the last one where none was measured."""
    measured = [(c.heldout, c.step, c) for c in checkpoints if c.heldout is not None]
    return min(measured)[2] if measured else checkpoints[-1]


def save(
    finetune_dir: Path,
    state: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    ema: Mapping[str, Tensor] | None,
    optimizer: torch.optim.Optimizer,
    keep: int | None = None,
) -> Checkpoint:
    """Store a checkpoint, move the links ``best`` and ``last``, and delete old checkpoints.

    Args:
        finetune_dir: the run's ``finetune`` folder.
        state: JSON values, with ``step``, ``samples_seen`` and ``heldout`` among them.
        weights: the trained weights by name; the order is the optimizer's.
        ema: their average, if there is one.
        optimizer: over exactly these weights.
        keep: so many of the newest stay, and the best; None keeps all.
    """
    folder = finetune_dir / "checkpoints"
    path = folder / f"step-{state['step']:08d}"
    tensors = {"weights": weights, "ema": ema, "state": optimizer_tensors(weights, optimizer)}
    _write_folder(path, tensors, state)
    _link(folder / "last", path.name)
    checkpoints = list_checkpoints(finetune_dir)
    best = best_of(checkpoints)
    _link(folder / "best", best.path.name)
    for old in checkpoints[:-keep] if keep else []:
        if old != best:
            remove_folder(old.path)
    return checkpoints[-1]


def _write_folder(
    path: Path, tensors: Mapping[str, Mapping[str, Tensor] | None], state: Mapping[str, Any]
) -> None:
    """Write a checkpoint's files under a temporary name, sync them, and rename the folder."""
    part = path.with_name(f".{path.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for name, values in tensors.items():
        if values is not None:
            detached = {key: value.detach().cpu().contiguous() for key, value in values.items()}
            save_file(detached, part / f"{name}.safetensors")
            _sync(part / f"{name}.safetensors")
    checksums.write(part)  # of these, which stay as they are
    write_certified(part / "state.json", state)
    _sync(part)
    part.rename(path)
    _sync(path.parent)


def optimizer_tensors(
    weights: Mapping[str, Tensor], optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """The optimizer's state as ``<weight>|<quantity>`` -> tensor."""
    return {
        f"{name}|{quantity}": value
        for name, weight in weights.items()
        for quantity, value in optimizer.state[weight].items()
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, weights: Mapping[str, Tensor], checkpoint: Checkpoint
) -> None:
    """Give a fresh optimizer over ``weights`` the state it had at ``checkpoint``."""
    stored = load_file(checkpoint.checked("state.safetensors"))
    index = {name: number for number, name in enumerate(weights)}
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in stored.items():
        name, _, quantity = key.rpartition("|")
        state.setdefault(index[name], {})[quantity] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def remove_folder(path: Path) -> None:
    """Delete a folder, if it is there. If the process is killed, it is still complete or already gone."""
    part = path.with_name(f".{path.name}.removed.part")
    shutil.rmtree(part, ignore_errors=True)
    if path.exists():
        path.rename(part)
        shutil.rmtree(part)


def remove_unfinished(finetune_dir: Path) -> None:
    """Delete the incomplete checkpoints that killed processes left."""
    for part in (finetune_dir / "checkpoints").glob(".*.part"):
        if part.is_dir() and not part.is_symlink():
            shutil.rmtree(part)
        else:
            part.unlink()


def _link(link: Path, target: str) -> None:
    part = link.with_name(f".{link.name}.part")
    part.unlink(missing_ok=True)
    part.symlink_to(target)
    part.replace(link)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
