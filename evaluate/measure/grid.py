"""Measure and store the losses of every checkpoint at fixed noise levels and noises.

The verdict follows from ``losses.npz`` alone, so that runs can be compared picture by picture later,
without their models. A checkpoint that is stored there is not measured again.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from curate.run.progress import Bar
from curate.run.schema import UserError
from evaluate.measure.training_losses import TrainingLosses
from evaluate.measure_config import GridConfig
from finetune import npz
from finetune.at_once import losses_at_once
from finetune.caption_gain import at
from finetune.checkpoint import Checkpoint, weights_sha256
from finetune.heldout import HeldoutGrid, HeldoutItems, counted_bins, grid_losses
from finetune.intervals import group_means
from finetune.latents import tensors_of
from finetune.opened_run import FinetuneRun
from finetune.precision import computing_in, mark
from finetune.rules import START


class LossStore:
    """``losses.npz``: float32 [items, bins, draws] under ``<split>/<step>``, and the items' keys.

    Beside each array is a fingerprint of everything that it depends on; if that differs, the array is
    measured again. The file is written after every array; the same content gives the same bytes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.arrays: dict[str, np.ndarray] = {}
        self.used: set[str] = set()
        if path.is_file():
            self.arrays = {_renamed(name): array for name, array in _stored(path).items()}

    def has(self, name: str, fingerprint: str) -> bool:
        """Whether ``name`` was measured under this fingerprint."""
        return str(self.arrays.get(f"{name}/fingerprint")) == fingerprint

    def losses(self, name: str, fingerprint: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
        """The stored array; if there is none, the computed one, which is then stored."""
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

    def put_origin(self, origin: Mapping[str, str]) -> None:
        """Record what all losses depend on, see ``evaluate.judged_runs.judged.origin_of``."""
        for name, digest in origin.items():
            self.arrays[f"origin/{name}"] = np.array(digest)
            self.used.add(f"origin/{name}")

    def put_scores(
        self, metric: str, on: str, keys: Sequence[str], values: np.ndarray, instrument: str = ""
    ) -> None:
        """Record a metric's value of each picture, so that ``evaluate.compare`` can compare runs by it.

        Args:
            metric: its name.
            on: which pictures, as ``Metric.on``.
            keys: N. values: [N].
            instrument: what it was measured with, and on which scale; runs in which it differs are not compared.
        """
        parts = {
            "keys": keys,
            "values": values.astype(np.float64),
            "on": on,
            "instrument": instrument,
        }
        for part, content in parts.items():
            self.arrays[f"scores/{metric}/{part}"] = np.array(content)
            self.used.add(f"scores/{metric}/{part}")

    def prune(self) -> None:
        """Remove what this evaluation did not use, such as checkpoints that were deleted."""
        self.arrays = {name: self.arrays[name] for name in self.used}
        self.save()

    def save(self) -> None:
        """Write the file, atomically."""
        npz.write(self.path, dict(sorted(self.arrays.items())))


def _stored(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file; none, and a line, if it is damaged."""
    try:
        return npz.read(path)
    except npz.DamagedArrays as error:
        Bar.write(f"{error}; all losses are measured again")
        return {}


def _renamed(name: str) -> str:
    """Files of the first version call the training pictures ``probe``."""
    return f"train_{name}" if name.startswith("probe/") else name


@dataclass(frozen=True, slots=True)
class LossTable:
    """Losses by row; row 0 is the base, the others are the checkpoints in order of training.

    Attributes:
        steps, samples_seen: [K+1] of each row.
        val, train_probe: float32 [K+1, items, bins, draws], on held-out and on training pictures.
        keys, train_probe_keys: of the items. groups, train_probe_groups: their duplicate groups.
        start: float32 [items, bins, draws] of what training started with, on held-out and on training pictures;
            None where that was the base.
    """

    steps: tuple[int, ...]
    samples_seen: tuple[int, ...]
    val: np.ndarray
    train_probe: np.ndarray
    keys: list[str]
    train_probe_keys: list[str]
    groups: list[str]
    train_probe_groups: list[str]
    start: tuple[np.ndarray, np.ndarray] | None = None


@dataclass(frozen=True, slots=True)
class SplitLosses:
    """Losses [rows, items, bins, draws] of some rows on one split, with the items' keys and groups."""

    losses: np.ndarray
    keys: list[str]
    groups: list[str]


def by_bin(losses: np.ndarray, groups: Sequence[str]) -> np.ndarray:
    """Change of each row's mean loss against the base's per noise level, a fraction.

    Args:
        losses: [K+1, items, bins, draws], row 0 is the base.
        groups: [items], each counts once.

    Returns:
        float64 [K+1, bins]; NaN where the base has almost nothing to predict, as those levels are
        left out of every score.
    """
    by_item = losses.mean(axis=3, dtype=np.float64)
    means = np.stack([group_means(row, groups).mean(axis=0) for row in by_item])
    counted = counted_bins(losses[0], groups)
    return np.where(counted, means / means[0] - 1, np.nan)


class Grid:
    """Measures the base and the checkpoints of one run."""

    def __init__(
        self,
        run: FinetuneRun,
        config: GridConfig,
        store: LossStore,
        device: torch.device,
        precision: str = "no",
    ) -> None:
        self.run, self.config, self.store, self.device = run, config, store, device
        self.precision = precision
        self.model = run.model(device)
        self.grid = HeldoutGrid(config.bins, config.draws, config.seed)
        self._base = self.model.fingerprint()

    @property
    def batch_size(self) -> int:
        """Losses measured at once."""
        return self.config.batch_size or losses_at_once(self.model.resolution)

    def table(self) -> LossTable:
        """The base and every checkpoint on held-out pictures and on as many training pictures.

        Raises:
            UserError: the run has no held-out pictures.
        """
        val = self._items("val", self.config.items)
        train_probe = self._items("train", len(val))
        self.store.put_keys("val", val.keys)
        self.store.put_keys("train_probe", train_probe.keys)
        rows: list[Checkpoint | None] = [None, *self.run.checkpoints()]
        splits = {"val": val, "train_probe": train_probe}
        losses, start = self.measure(rows, splits), self.run.start()
        started = self.measure([start], splits) if start else None
        return LossTable(
            steps=tuple(row.step if row else 0 for row in rows),
            samples_seen=tuple(row.samples_seen if row else 0 for row in rows),
            val=losses["val"],
            train_probe=losses["train_probe"],
            keys=val.keys,
            train_probe_keys=train_probe.keys,
            groups=val.groups,
            train_probe_groups=train_probe.groups,
            start=(started["val"][0], started["train_probe"][0]) if started else None,
        )

    def test(self, stored: Checkpoint) -> SplitLosses | None:
        """Losses of the base and of a checkpoint on ``test``, if it exists."""
        if not self.run.has("test"):
            return None
        items = self.run.items("test", self.config.items, self.device)
        self.store.put_keys("test", items.keys)
        losses = self.measure([None, stored], {"test": items})["test"]
        return SplitLosses(losses, items.keys, items.groups)

    def _items(self, split: str, count: int) -> HeldoutItems:
        if not self.run.has(split):
            raise UserError(
                f"{self.run.run_dir} has no pictures in the split {split!r}; give split.val a share "
                "above zero and run python -m curate again"
            )
        return self.run.items(split, count, self.device)

    def at(self, cells: HeldoutGrid) -> Grid:
        """The same run and store, at other cells."""
        found = copy.copy(self)
        found.grid = cells
        return found

    def measure(
        self, rows: Sequence[Checkpoint | None], splits: Mapping[str, HeldoutItems]
    ) -> dict[str, np.ndarray]:
        """Losses of the base (None) and of checkpoints; what is stored is not measured again.

        Args:
            rows: what to measure.
            splits: items by the name that their losses are stored under.

        Returns:
            For each name float32 [rows, items, bins, draws].
        """
        weights = [weights_sha256(row) for row in rows]
        marks = {
            (number, split): self.fingerprint(weights[number], items)
            for number in range(len(rows))
            for split, items in splits.items()
        }
        trained = TrainingLosses(self.run, self.grid, self.precision, self._base)
        known = {
            (number, split): trained.of(rows[number], split)
            for (number, split), fingerprint in marks.items()
            if not self.store.has(row_name(split, rows[number]), fingerprint)
        }
        missing = sum(
            (key not in found) * self.grid.bins * self.grid.draws
            for (_, split), found in known.items()
            for key in splits[split].keys
        )

        found: dict[str, list[np.ndarray]] = {split: [] for split in splits}
        with Bar(total=missing, unit="loss", desc="loss grid", disable=not missing) as bar:
            for (number, split), fingerprint in marks.items():
                row = rows[number]
                parts = row, splits[split], known.get((number, split), {}), bar.update
                compute = partial(self._compute, *parts)
                found[split].append(self.store.losses(row_name(split, row), fingerprint, compute))
        return {split: np.stack(losses) for split, losses in found.items()}

    def _compute(
        self,
        row: Checkpoint | None,
        items: HeldoutItems,
        known: Mapping[str, np.ndarray],
        progress: Callable[[int], object],
    ) -> np.ndarray:
        """A row's losses [items, bins, draws]; those of some keys are known."""
        losses = dict(known)
        left = np.array([i for i, key in enumerate(items.keys) if key not in known], np.int64)
        if len(left):
            some, unet = at(items, left), self.run.unet_at(row, device=self.device)
            with computing_in(self.precision, unet):
                size = self.batch_size
                found = grid_losses(self.model, unet, some, self.grid, size, progress)
            losses |= zip(some.keys, found, strict=True)
        return np.stack([losses[key] for key in items.keys])

    def fingerprint(self, weights: str, items: HeldoutItems) -> str:
        """Changes with the weights (see ``finetune.checkpoint.weights_sha256``), the items and the grid."""
        known = [self._base, self.grid, items.keys, *mark(self.precision).values()]
        digest = hashlib.blake2b(" ".join(map(str, known)).encode(), digest_size=16)
        digest.update(weights.encode())
        for tensor in (*tensors_of(items.latents), *items.conditioning.tensors.values()):
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()


def row_name(split: str, row: Checkpoint | None) -> str:
    """What a row's losses on a split are stored under: the base (None) as step 0, what training started with apart."""
    if row and row.step == 0:
        return f"{split}/{START}"
    return f"{split}/{row.step if row else 0:08d}"
