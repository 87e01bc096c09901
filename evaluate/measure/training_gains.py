"""Measure training pairs with their captions and with none, at fixed noise, for ``evaluate.measure.reconsider``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from curate.run.manifest import read_manifest
from curate.run.progress import Bar
from evaluate.measure.grid import Grid
from evaluate.measure.parts import read_table
from evaluate.measure.reconsider import Gains, candidates
from finetune.cache import EncodedSplit
from finetune.checkpoint import weights_sha256
from finetune.data import keyed_seed
from finetune.heldout import HeldoutGrid, HeldoutItems, choose, grid_losses, relative
from finetune.intervals import Array
from finetune.precision import computing_in

if TYPE_CHECKING:
    from finetune.checkpoint import Checkpoint

LEVELS = (0.45, 0.65, 0.85)
"""Noise levels as shares of the diffusion time: at less noise the picture itself says what the caption could."""

REFERENCE = 64  # pictures, chosen by hash, that say what a caption helps typically


@dataclass(frozen=True, slots=True)
class LevelGrid(HeldoutGrid):
    """The levels of ``LEVELS``, one noise for each."""

    bins: int = len(LEVELS)
    draws: int = 1

    def timesteps(self, total: int) -> Tensor:
        """[B, 1] int64."""
        return torch.tensor([[int(level * total)] for level in LEVELS])


def measure(grid: Grid, row: Checkpoint | None, count: int) -> Gains:
    """Caption gains of the training pictures that the curation's filter was least sure of.

    Args:
        grid: stores the losses, and knows run, model and device.
        row: the checkpoint; None for the base.
        count: pictures at most.
    """
    run = grid.run
    shards = read_manifest(run.curate_dir).shards_of("train")
    encoded = run.encoded("train", grid.device)
    similarity = read_table(run.curate_dir, shards, encoded.keys)["similarity"].to_numpy(np.float64)
    seeds = [keyed_seed("reconsider", key) for key in encoded.keys]
    chosen = candidates(encoded.keys, similarity, seeds, count)
    reference = choose(encoded, REFERENCE).tolist()
    all_of = list(dict.fromkeys([*chosen, *reference]))
    keys = [encoded.keys[i] for i in all_of]
    gain = dict(zip(all_of, _gains(grid, row, encoded, torch.tensor(all_of)), strict=True))
    groups = dict(zip(all_of, run.groups_of("train", keys), strict=True))
    order = np.sort(similarity[~np.isnan(similarity)])
    own = similarity[chosen]
    below = np.searchsorted(order, own) / max(len(order), 1)
    return Gains(
        keys=[encoded.keys[i] for i in chosen],
        captions=[encoded.captions[i] for i in chosen],
        groups=[groups[i] for i in chosen],
        gain=np.array([gain[i] for i in chosen]),
        similarity=own,
        below=np.where(np.isnan(own), np.nan, below),
        reference=np.array([gain[i] for i in reference]),
        reference_groups=[groups[i] for i in reference],
    )


def _gains(grid: Grid, row: Checkpoint | None, encoded: EncodedSplit, indices: Tensor) -> Array:
    """How much less the loss is with the caption than with none, [N], as a share of the mean with captions."""
    latents, captions = encoded.latents_of(indices), encoded.conditioning_of(indices)
    keys = [encoded.keys[i] for i in indices.tolist()]
    empty = captions.drop(torch.ones(len(keys), dtype=torch.bool), encoded.empty)
    items = {
        "own": HeldoutItems(keys, latents, captions, keys),
        "none": HeldoutItems(keys, latents, empty, keys),
    }
    losses = _losses(grid, row, items)
    return relative(losses["none"], losses["own"]) - relative(losses["own"], losses["own"])


def _losses(
    grid: Grid, row: Checkpoint | None, items: dict[str, HeldoutItems]
) -> dict[str, np.ndarray]:
    """float32 [N, B, 1] by name; what is stored is not measured again."""
    levels = LevelGrid(seed=grid.config.seed)
    weights, step = weights_sha256(row), row.step if row else 0
    marks = {name: f"{grid.fingerprint(weights, each)} {LEVELS}" for name, each in items.items()}
    names = {name: f"reconsider_{name}/{step:08d}" for name in items}
    missing = [name for name in items if not grid.store.has(names[name], marks[name])]
    total = sum(len(items[name]) for name in missing) * len(LEVELS)
    with Bar(total=total, unit="loss", desc="captions", disable=not missing) as bar:

        def compute(each: HeldoutItems) -> np.ndarray:
            unet = grid.run.unet_at(row, device=grid.device)
            with computing_in(grid.precision, unet):
                return grid_losses(grid.model, unet, each, levels, grid.batch_size, bar.update)

        return {
            name: grid.store.losses(names[name], marks[name], partial(compute, each))
            for name, each in items.items()
        }
