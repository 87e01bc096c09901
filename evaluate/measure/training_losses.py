"""Losses that training measured already, where they are those that an evaluation would measure.

Training and evaluation choose pictures alike (``finetune.heldout.choose``) and measure them at the same noise
levels, with the noise of the picture's key. So ``finetune/heldout.npz`` has what ``evaluate.measure.grid`` asks for wherever

* grid, seed and precision are equal,
* data and base model are those of the training, and
* the weights are the checkpoint's: its ``state.json`` has the mean held-out loss that was measured just before
  it was stored, and that evaluation's losses give the same number. A checkpoint that a signal caused has none.

They differ from losses measured again by rounding at most, as another batch size or device does.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from curate.run.manifest import read_manifest
from finetune.checkpoint import Checkpoint
from finetune.curve import HeldoutCurve
from finetune.heldout import HeldoutGrid
from finetune.npz import DamagedArrays
from finetune.opened_run import FinetuneRun

SPLITS = ("val", "train_probe")


class TrainingLosses:
    """What a run's training measured.

    Attributes:
        grid: noise levels and noises of the evaluation. precision: in which it computes.
        base: digest of the base model.
    """

    def __init__(self, run: FinetuneRun, grid: HeldoutGrid, precision: str, base: str) -> None:
        self.grid, self.precision = grid, precision
        self._run, self._base = run, base

    def of(self, row: Checkpoint | None, split: str) -> dict[str, np.ndarray]:
        """Losses [bins, draws] by the picture's key, of the base (None) or a checkpoint; none if unsure."""
        curve = self._curve if split in SPLITS else None
        if curve is None:
            return {}
        if row and row.step == 0:
            return self._of_start(curve, split)
        step = row.step if row else 0
        if step not in curve.steps:
            return {}
        at = curve.steps.index(step)
        if curve.precisions[at] != self.precision:
            return {}
        if row and row.scale != 1:  # training measured it as it was trained
            return {}
        if row and (row.interrupted or row.heldout != curve.heldout(at)):
            return {}
        keys, losses = (
            (curve.val_keys, curve.val)
            if split == "val"
            else (curve.train_probe_keys, curve.train_probe)
        )
        return dict(zip(keys, losses[at], strict=True))

    def _of_start(self, curve: HeldoutCurve, split: str) -> dict[str, np.ndarray]:
        """Those of what training started with."""
        if curve.start is None or curve.precisions[0] != self.precision:
            return {}
        place = SPLITS.index(split)
        keys = (curve.val_keys, curve.train_probe_keys)[place]
        return dict(zip(keys, curve.start[place], strict=True))

    @cached_property
    def _curve(self) -> HeldoutCurve | None:
        """Every evaluation of the training; None if there was none like this, or the file is damaged."""
        stored = self._run.checkpoints()
        if not stored or type(self.grid) is not HeldoutGrid:
            return None
        known, grid = stored[-1].state()["identity"], self.grid
        now = {
            "heldout.bins": grid.bins,
            "heldout.draws": grid.draws,
            "heldout.seed": grid.seed,
            "weights": self._base,
            "shards": read_manifest(self._run.curate_dir).digest(),
        }
        if any(known.get(k) != v for k, v in now.items()):
            return None
        try:
            return HeldoutCurve.load(self._run.finetune_dir / "heldout.npz")
        except (FileNotFoundError, DamagedArrays):
            return None
