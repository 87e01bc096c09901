"""Checkpoints: folders that appear only when complete, and the links to the best and the last one."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from curate.run import checksums
from curate.run.files import (
    naming,
    read_json,
    remove_folder,
    replace_folder,
    sha256_once,
    write_certified,
)
from curate.run.finished import to_mend
from curate.run.schema import UserError
from finetune import optimizers

_OPTIMIZER = "state.safetensors"
_ASIDE = "damaged-"  # begins the name of a checkpoint that is made again


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One stored state of a run. Step 0 is the base model, which is never stored; see also ``finetune.start``.

    Attributes:
        step: optimizer updates made. samples_seen: samples they took.
        path: folder with ``weights.safetensors``, ``state.safetensors`` (of the optimizer), their
            ``checksums.json``, ``state.json``, which has a checksum in itself, and, where an average is kept,
            ``ema.safetensors``. Of an older one only what is evaluated and exported may be left, see :func:`settle`.
        heldout: mean relative held-out loss of the weights to export; None without held-out pairs, or
            where it was not finite.
        interrupted: it is there because a signal stopped the run, only for resuming; the next
            checkpoint replaces it.
        scale: at which those who judge, draw or export it take its update, see ``finetune.retention.scale``; what is
            stored, and :meth:`weights`, are at 1.
    """

    step: int
    samples_seen: int
    path: Path
    heldout: float | None
    interrupted: bool = False
    scale: float = 1.0

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
        if _lacks_checksums(self.path):
            raise damaged(self.path, checksums.FILE)
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


def set_aside_damaged(finetune_dir: Path) -> list[str]:
    """Rename the last checkpoint as long as it is damaged: training makes it again from the one before.

    What is renamed stays until its replacement, or a later checkpoint, is there; see :func:`settle`.

    Returns:
        A line for each of them.

    Raises:
        UserError: no checkpoint is left to go on from; all are as they were.
    """
    folder, broken = finetune_dir / "checkpoints", dict[Path, str]()
    for path in sorted(folder.glob("step-*"), reverse=True):
        if found := _problems(path):
            broken[path] = "; ".join(found)
            continue
        if not (path / _OPTIMIZER).exists():
            broken[path] = f"without {_OPTIMIZER}, which checkpoint.keep limits to the newest"
            raise _nothing_to_go_on_from(folder, broken)
        for damaged_one in broken:
            _link(folder / "last", path.name)
            remove_folder(aside := damaged_one.with_name(_ASIDE + damaged_one.name))
            damaged_one.rename(aside)
        return [
            f"{damaged_one} is damaged ({why}); training goes on from {path.name} and makes it again, and until "
            f"then it is called {_ASIDE}{damaged_one.name}"
            for damaged_one, why in broken.items()
        ]
    if broken:
        raise _nothing_to_go_on_from(folder, broken)
    return []


def _nothing_to_go_on_from(folder: Path, broken: Mapping[Path, str]) -> UserError:
    each = ". ".join(f"{path.name}: {why}" for path, why in broken.items())
    return UserError(
        f"training cannot go on from any checkpoint in {folder}. {each}. Restore one of them from a copy and type the "
        f"same command again; or, to train from the start, type first: rm -r {shlex.quote(str(folder))}"
    )


def _problems(path: Path) -> list[str]:
    """What is wrong with a checkpoint's files, as far as they are meant to be there."""
    found = []
    if read_json(path / "state.json") is None:
        found.append(f"state.json: {'damaged' if (path / 'state.json').exists() else 'missing'}")
    if _lacks_checksums(path):
        return [*found, f"{checksums.FILE}: missing"]
    if (path / checksums.FILE).exists():
        return [*found, *checksums.problems(path)]
    for name in ("weights.safetensors", _OPTIMIZER):  # of a release that listed none
        try:
            with safe_open(path / name, framework="pt"):
                pass
        except FileNotFoundError:
            found.append(f"{name}: missing")
        except SafetensorError as error:
            found.append(f"{name}: damaged ({error})")
    return found


def _lacks_checksums(path: Path) -> bool:
    """Whether a checkpoint has lost its ``checksums.json``. The release that wrote the first sealed its state, too."""
    if (path / checksums.FILE).exists():
        return False
    return read_json(path / "state.json", sealed=True) is not None


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
) -> Checkpoint:
    """Store a checkpoint; afterwards call :func:`settle`.

    Args:
        finetune_dir: the run's ``finetune`` folder.
        state: JSON values, with ``step``, ``samples_seen`` and ``heldout`` among them; with
            ``interrupted`` if the checkpoint is only for resuming.
        weights: the trained weights by name; the order is the optimizer's.
        ema: their average, if there is one.
        optimizer: over exactly these weights.

    Raises:
        OSError: the disk is full or refuses; nothing is left of this checkpoint, and the others are
            as they were.
    """
    path = finetune_dir / "checkpoints" / f"step-{state['step']:08d}"
    if path.exists() and "interrupted" in (read_json(path / "state.json") or {}):
        write_certified(path / "state.json", state)  # the same weights, evaluated by now
    else:
        tensors = {"weights": weights, "ema": ema, "state": optimizers.tensors(weights, optimizer)}
        _write_folder(path, tensors, state)
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


def settle(finetune_dir: Path, keep: int | None = None) -> list[str]:
    """Point the links ``best`` and ``last`` at their checkpoints, then delete what is not kept.

    That is a checkpoint of an interruption that another one follows; a damaged one that was made again; and,
    of all but the newest ``keep``, what only resuming needs. Weights to evaluate stay, of every checkpoint.
    If the process is killed after a checkpoint was stored and before this, the next start does it.

    Args:
        finetune_dir: the run's ``finetune`` folder.
        keep: so many of the newest keep their optimizer; None: all.

    Returns:
        What the paths of changed files in ``finetune_dir`` begin with.
    """
    folder, checkpoints = finetune_dir / "checkpoints", list_checkpoints(finetune_dir)
    if not checkpoints:
        return []
    best, last = best_of(checkpoints), checkpoints[-1]
    _link(folder / "last", last.path.name)
    _link(folder / "best", best.path.name)
    regular = [found for found in checkpoints if not found.interrupted]
    for old in checkpoints:
        if old.interrupted and old != last:
            remove_folder(old.path)
    for aside in folder.glob(f"{_ASIDE}step-*"):
        if aside.name.removeprefix(_ASIDE) <= last.path.name:
            remove_folder(aside)
    stripped = [old.path for old in regular[:-keep] if _strip(old.path)] if keep else []
    return [f"{path.relative_to(finetune_dir).as_posix()}/" for path in stripped]


def _strip(path: Path) -> bool:
    """Leave of a checkpoint what is evaluated and exported: the average or, without one, the weights.

    Killed in between, it is done again: what is deleted is taken out of ``checksums.json`` before.

    Returns:
        Whether anything was there to delete.
    """
    listed = checksums.read(path)
    if listed is None and (path / checksums.FILE).exists():
        return False  # damaged: it stays as it is
    names = {file.name for file in path.iterdir()} if listed is None else listed.files.keys()
    spare = {_OPTIMIZER, *(["weights.safetensors"] if "ema.safetensors" in names else [])}
    there = [path / name for name in sorted(spare) if (path / name).exists()]
    if there:
        checksums.forget(path, spare)
        for file in there:
            file.unlink()
    return bool(there)


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


def restore_optimizer(
    optimizer: torch.optim.Optimizer, weights: Mapping[str, Tensor], checkpoint: Checkpoint
) -> None:
    """Give a fresh optimizer over ``weights`` the state it had at ``checkpoint``."""
    optimizers.restore(optimizer, weights, load_file(checkpoint.checked("state.safetensors")))


def _link(link: Path, target: str) -> None:
    part = link.with_name(f".{link.name}.part")
    part.unlink(missing_ok=True)
    part.symlink_to(target)
    part.replace(link)


def weights_sha256(stored: Checkpoint | None) -> str:
    """Of the file that :meth:`Checkpoint.weights` reads by default, with its scale; "base" for None, the base model."""
    if stored is None:
        return "base"
    known = sha256_once(stored.weights_path())
    return known if stored.scale == 1 else f"{known} at {stored.scale!r}"
