"""The losses of the base and of every checkpoint on one frozen grid, stored cell by cell.

Everything that a verdict says comes from ``losses.npz``, so that runs can be compared paired, months
later, without the models. It is also the resume state: a checkpoint that was measured is not measured
again.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from curate.run.cli import UserError
from curate.run.files import atomic_write, sha256_of
from evaluate.config import GridConfig
from finetune.checkpoint import Checkpoint
from finetune.heldout import NEGLIGIBLE_BIN, HeldoutGrid, HeldoutItems, grid_losses
from finetune.run import FinetuneRun


class LossStore:
    """``losses.npz``: float32 [items, bins, draws] under ``<split>/<step>``, and the items' keys.

    Beside each array lies a fingerprint of all that it depends on; with another one it is measured
    again. The file is written after every array, and the same content has the same bytes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.arrays: dict[str, np.ndarray] = {}
        self.used: set[str] = set()
        if path.is_file():
            with np.load(path) as stored:
                self.arrays = {name: stored[name] for name in stored.files}

    def has(self, name: str, fingerprint: str) -> bool:
        """Whether ``name`` was measured under this fingerprint."""
        return str(self.arrays.get(f"{name}/fingerprint")) == fingerprint

    def losses(self, name: str, fingerprint: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
        """The stored array, or the computed one, stored."""
        self.used |= {name, f"{name}/fingerprint"}
        if not self.has(name, fingerprint):
            self.arrays[name] = compute()
            self.arrays[f"{name}/fingerprint"] = np.array(fingerprint)
            self.save()
        return self.arrays[name]

    def put_keys(self, split: str, keys: Sequence[str]) -> None:
        """Record which items the rows of ``split`` are."""
        self.arrays[f"{split}/keys"] = np.array(keys)
        self.used.add(f"{split}/keys")

    def prune(self) -> None:
        """Forget what this evaluation did not ask for, such as checkpoints that are gone."""
        self.arrays = {name: self.arrays[name] for name in self.used}
        self.save()

    def save(self) -> None:
        """Write the file, atomically."""
        stream = io.BytesIO()
        np.savez(stream, **dict(sorted(self.arrays.items())))  # type: ignore[arg-type]
        with atomic_write(self.path) as file:
            file.write(stream.getvalue())


@dataclass(frozen=True, slots=True)
class LossTable:
    """Losses by row; row 0 is the base, the others are the checkpoints in order of training.

    Attributes:
        steps, samples_seen: [K+1] of each row.
        val, probe: float32 [K+1, items, bins, draws].
        keys: of the held-out items.
    """

    steps: tuple[int, ...]
    samples_seen: tuple[int, ...]
    val: np.ndarray
    probe: np.ndarray
    keys: list[str]


def by_bin(losses: np.ndarray) -> np.ndarray:
    """Change of each row's mean loss against the base's per noise level, a fraction.

    Args:
        losses: [K+1, items, bins, draws], row 0 is the base.

    Returns:
        float64 [K+1, bins]; NaN where the base has next to nothing to predict, as those levels are
        left out of every score.
    """
    means = losses.mean(axis=(1, 3), dtype=np.float64)
    counted = means[0] >= NEGLIGIBLE_BIN * means[0].max()
    return np.where(counted, means / means[0] - 1, np.nan)


class Grid:
    """Measures U-Nets of one run on its frozen grid."""

    def __init__(
        self, run: FinetuneRun, config: GridConfig, store: LossStore, device: torch.device
    ) -> None:
        self.run, self.config, self.store, self.device = run, config, store, device
        self.model = run.model(device)
        self.grid = HeldoutGrid(config.bins, config.draws, config.seed)
        self._base = self.model.fingerprint()

    def table(self) -> LossTable:
        """The base and every checkpoint on held-out pictures and on as many training pictures.

        Raises:
            UserError: the run has no held-out pictures.
        """
        val = self.items("val", self.config.items)
        probe = self.items("train", len(val))
        rows: list[Checkpoint | None] = [None, *self.run.checkpoints()]
        with self._progress([(row, items) for row in rows for items in (val, probe)]) as bar:
            losses = [self._row(row, {"val": val, "probe": probe}, bar) for row in rows]
        return LossTable(
            steps=tuple(row.step if row else 0 for row in rows),
            samples_seen=tuple(row.samples_seen if row else 0 for row in rows),
            val=np.stack([row["val"] for row in losses]),
            probe=np.stack([row["probe"] for row in losses]),
            keys=val.keys,
        )

    def test(self, kept: Checkpoint) -> np.ndarray | None:
        """Losses [2, items, bins, draws] of base and kept on the split ``test``, if there is one."""
        items = self.run.items("test", self.config.items, self.device)
        if not len(items):
            return None
        self.store.put_keys("test", items.keys)
        with self._progress([(None, items), (kept, items)]) as bar:
            return np.stack([self._row(row, {"test": items}, bar)["test"] for row in (None, kept)])

    def items(self, split: str, count: int) -> HeldoutItems:
        """The items of ``split``, their keys recorded (training pictures as ``probe``)."""
        items = self.run.items(split, count, self.device)
        if not len(items):
            raise UserError(
                f"{self.run.run_dir} has no pictures in the split {split!r}; give split.val a share "
                "above zero and run python -m curate again"
            )
        self.store.put_keys("probe" if split == "train" else split, items.keys)
        return items

    def _row(
        self, row: Checkpoint | None, splits: dict[str, HeldoutItems], bar: tqdm
    ) -> dict[str, np.ndarray]:
        """Losses of one row on each split; the U-Net is only built where something is missing."""
        unet: list[nn.Module] = []

        def measure(items: HeldoutItems) -> np.ndarray:
            if not unet:
                unet.append(self.run.unet_at(row, device=self.device))
            batch = self.config.batch_size
            return grid_losses(self.model, unet[0], items, self.grid, batch, bar.update)

        return {
            split: self.store.losses(
                _name(split, row), self.fingerprint(row, items), lambda items=items: measure(items)
            )
            for split, items in splits.items()
        }

    def fingerprint(self, row: Checkpoint | None, items: HeldoutItems) -> str:
        """Changes with the weights, the items or the grid."""
        digest = hashlib.blake2b(f"{self._base} {self.grid} {items.keys}".encode(), digest_size=16)
        digest.update(weights_sha256(row).encode())
        for tensor in (items.latents, *items.conditioning.tensors.values()):
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def _progress(self, jobs: list[tuple[Checkpoint | None, HeldoutItems]]) -> tqdm:
        cells = self.config.bins * self.config.draws
        known = {str(a) for n, a in self.store.arrays.items() if n.endswith("/fingerprint")}
        missing = sum(len(i) for row, i in jobs if self.fingerprint(row, i) not in known)
        return tqdm(total=missing * cells, unit="loss", desc="loss grid", disable=not missing)


def weights_sha256(row: Checkpoint | None) -> str:
    """Of the file that :meth:`FinetuneRun.unet_at` reads by default; "base" for the base."""
    if row is None:
        return "base"
    averaged = row.path / "ema.safetensors"
    return sha256_of(averaged if averaged.exists() else row.path / "weights.safetensors")


def _name(split: str, row: Checkpoint | None) -> str:
    return f"{split}/{row.step if row else 0:08d}"
