"""Checkpoints: folders that appear only when complete, and the links to the best and the last one."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from curate.run import checksums
from curate.run.files import naming, read_json, replace_folder, sha256_once, write_certified
from curate.run.finished import to_mend
from curate.run.schema import UserError


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One stored state of a run. Step 0 is the base model, which is never stored; see also ``finetune.start``.

    Attributes:
        step: optimizer updates made. samples_seen: samples they took.
        path: folder with ``weights.safetensors``, ``state.safetensors``, their ``checksums.json``,
            ``state.json``, which has a checksum in itself, and, where an average is kept,
            ``ema.safetensors``.
        heldout: mean relative held-out loss of the weights to export; None without held-out pairs, or
            where it was not finite.
        interrupted: it is there because a signal stopped the run, only for resuming; the next
            checkpoint replaces it.
    """

    step: int
    samples_seen: int
    path: Path
    heldout: float | None
    interrupted: bool = False

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
    otherwise = (
        f"delete the folder {path}: the others stand for themselves; then train with the same command as before, which "
        "goes on from the last one and exports the best"
    )
    return UserError(
        f"{path / name} is damaged, not what training wrote; {to_mend(path.parents[2], otherwise)}"
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
        known = (state["step"], state["samples_seen"], path, state["heldout"])
        found.append(Checkpoint(*known, interrupted="interrupted" in state))
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
    """Store a checkpoint, and let links and retention follow, see :func:`settle`.

    Args:
        finetune_dir: the run's ``finetune`` folder.
        state: JSON values, with ``step``, ``samples_seen`` and ``heldout`` among them; with
            ``interrupted`` if the checkpoint is only for resuming.
        weights: the trained weights by name; the order is the optimizer's.
        ema: their average, if there is one.
        optimizer: over exactly these weights.
        keep: so many of the newest stay, and the best; None keeps all.

    Raises:
        OSError: the disk is full or refuses; nothing is left of this checkpoint, and the others are
            as they were.
    """
    path = finetune_dir / "checkpoints" / f"step-{state['step']:08d}"
    if path.exists() and "interrupted" in (read_json(path / "state.json") or {}):
        write_certified(path / "state.json", state)  # the same weights, evaluated by now
    else:
        tensors = {"weights": weights, "ema": ema, "state": optimizer_tensors(weights, optimizer)}
        _write_folder(path, tensors, state)
    settle(finetune_dir, keep)
    return list_checkpoints(finetune_dir)[-1]


def save_start(path: Path, weights: Mapping[str, Tensor], init: Mapping[str, Any]) -> None:
    """Store the weights that a training starts with, like a checkpoint without an optimizer.

    Args:
        path: of the folder; what is there is replaced.
        weights: by name.
        init: where they are from, see ``finetune.start.origin_of``.
    """
    state = {"step": 0, "samples_seen": 0, "heldout": None, "stopped": None, "init": init}
    _write_folder(path, {"weights": weights}, state)


def settle(finetune_dir: Path, keep: int | None = None) -> None:
    """Point the links ``best`` and ``last`` at their checkpoints, then delete those that are not kept.

    If the process is killed after a checkpoint was stored and before this, the next start does it.
    """
    folder, checkpoints = finetune_dir / "checkpoints", list_checkpoints(finetune_dir)
    if not checkpoints:
        return
    best, last = best_of(checkpoints), checkpoints[-1]
    _link(folder / "last", last.path.name)
    _link(folder / "best", best.path.name)
    regular = [found for found in checkpoints if not found.interrupted]
    dropped = [found for found in checkpoints if found.interrupted and found != last]
    dropped += [found for found in regular[:-keep] if found != best] if keep else []
    for old in dropped:
        remove_folder(old.path)


def _write_folder(
    path: Path, tensors: Mapping[str, Mapping[str, Tensor] | None], state: Mapping[str, Any]
) -> None:
    """Write a checkpoint's files under a temporary name, sync them, and rename the folder."""
    part = path.with_name(f".{path.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        with naming(path), os_errors():
            part.mkdir(parents=True)
            for name, values in tensors.items():
                if values is not None:
                    detached = {k: value.detach().cpu().contiguous() for k, value in values.items()}
                    save_file(detached, part / f"{name}.safetensors")
            checksums.write(part)  # of these, which stay as they are
            write_certified(part / "state.json", state)
            replace_folder(part, path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


@contextmanager
def os_errors() -> Iterator[None]:
    """Turn what safetensors says about the file system into the ``OSError`` it is.

    Raises:
        OSError: a write failed; it names no file.
    """
    try:
        yield
    except SafetensorError as error:
        found = re.search(r"os error (\d+)", str(error))
        if found is None:
            raise
        number = int(found[1])
        raise OSError(number, os.strerror(number)) from error


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


def _link(link: Path, target: str) -> None:
    part = link.with_name(f".{link.name}.part")
    part.unlink(missing_ok=True)
    part.symlink_to(target)
    part.replace(link)


def weights_sha256(stored: Checkpoint | None) -> str:
    """Of the file that :meth:`Checkpoint.weights` reads by default; "base" for None, the base model."""
    return "base" if stored is None else sha256_once(stored.weights_path())
