"""Measure a training's result at several scales of its update, and choose one; see ``finetune.retention.scale``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache

import numpy as np
import torch
from torch import Tensor

from curate.run.files import sha256_once
from curate.run.progress import Bar
from curate.run.schema import UserError
from finetune import start
from finetune.checkpoint import Checkpoint
from finetune.config import TrainConfig
from finetune.ema import copy_into
from finetune.heldout import HeldoutGrid, HeldoutItems, grid_losses
from finetune.models.interface import LatentDiffusion
from finetune.retention import prompts, scale
from finetune.retention.base_pictures import pictures_of
from finetune.retention.scale import Choice, Measured

BaseValues = Callable[[], Mapping[str, Tensor]]


def settled(config: TrainConfig, best: Checkpoint) -> Choice | None:
    """The scale of the export of a checkpoint, where it is noted or needs no measurement; else None."""
    export = config.export
    digest = sha256_once(best.weights_path())
    try:
        known = scale.chosen(config.folder)
    except UserError:
        return None  # it is made again
    if not export.chosen:
        wanted = scale.given(export, digest)
        noted = known is None if wanted.scale == 1 else known == wanted
        return wanted if noted else None
    asked = (export.scale, export.forgotten, prompts.digest(prompts.for_scales(config)), digest)
    if known and (known.asked, known.forgotten, known.prompts, known.weights_sha256) == asked:
        return known
    return None


def at_its_scale(config: TrainConfig, best: Checkpoint) -> Checkpoint | None:
    """The checkpoint at the scale of the export; None where that is still to be chosen or noted."""
    found = settled(config, best)
    return replace(best, scale=found.scale) if found else None


def choose(
    config: TrainConfig,
    model: LatentDiffusion,
    best: Checkpoint,
    items: HeldoutItems | None,
    base: BaseValues,
) -> Choice:
    """Choose the scale of the export and write ``scale.json``; what is noted already is not measured again.

    Args:
        config: of the training.
        model: the base, its U-Net prepared; its trained weights are overwritten.
        best: the checkpoint to export.
        items: the held-out pictures; None only where nothing is measured.
        base: gives what the base has itself of the trained weights, by name.
    """
    if known := settled(config, best):
        return known
    digest = sha256_once(best.weights_path())
    export = config.export
    if not export.chosen:
        found = scale.given(export, digest)
    else:
        assert items is not None
        table = _Sweep(config, model, best, items, base).table()
        value, rule = scale.choose(table, export.forgotten)
        asked = prompts.digest(prompts.for_scales(config))
        found = Choice(value, export.scale, export.forgotten, asked, rule, digest, table)
        if rule.startswith("none"):
            started = any(row.start for row in table)
            others = "export.scale=1" if started else "smaller ones"  # which would shrink the start
            print(
                f"warning: no scale of export.scale={export.scales} keeps what the base could and still gains: {rule}. Read "
                f"{config.folder / scale.FILE}, then type {others}, or a larger export.forgotten",
                file=sys.stderr,
            )
    scale.note(config.folder, found)
    return found


class _Sweep:
    """The base and one checkpoint at several scales."""

    def __init__(
        self,
        config: TrainConfig,
        model: LatentDiffusion,
        best: Checkpoint,
        items: HeldoutItems,
        base: BaseValues,
    ) -> None:
        self.config, self.model, self.items = config, model, items
        self._base = cache(base)  # several scales need them
        self._weights = config.method.trainable(model.unet)
        self._values = best.weights()
        self._start = start.stored(config.folder)
        self.grid = HeldoutGrid(config.heldout.bins, scale.DRAWS, config.heldout.seed)

    def _at(self, factor: float) -> None:
        method, unet = self.config.method, self.model.unet
        copy_into(self._weights, method.scaled(unet, self._values, factor, self._base))

    def table(self) -> tuple[Measured, ...]:
        """A row for each scale."""
        self._at(0)
        shown = prompts.for_scales(self.config)
        unet = self.model.unet
        drawn = pictures_of(
            self.config.folder,
            scale.PICTURES,
            self.model,
            lambda: unet,
            shown,
            self.config.method.held(),
        )
        every = torch.arange(len(drawn))
        pictures = HeldoutItems(drawn.keys, drawn.latents, drawn.conditioning_of(every), shown)
        scales = self.config.export.scales
        total = (1 + len(scales)) * (len(self.items) + len(pictures)) * self.grid.bins
        total += len(self.items) * self.grid.bins if self._start else 0
        rows = []
        with Bar(desc="scales", total=total, unit="loss", leave=False) as bar:
            base = [self._losses(each, bar.update) for each in (self.items, pictures)]
            since = self._of_start(bar.update)
            for value in scales:
                self._at(value)
                losses = [self._losses(each, bar.update) for each in (self.items, pictures)]
                heldout = scale.change(losses[0], base[0], self.items.groups)
                drawn_ones = scale.change(losses[1], base[1], pictures.groups)
                further = None
                if since is not None:
                    further = scale.change(losses[0], base[0], self.items.groups, since)
                rows.append(Measured(value, heldout, drawn_ones, further))
        return tuple(rows)

    def _of_start(self, progress: Callable[[int], object]) -> np.ndarray | None:
        """The held-out losses of what the training started with; None where that was the base."""
        if self._start is None:
            return None
        copy_into(self._weights, self._start.weights())
        return self._losses(self.items, progress)

    def _losses(self, items: HeldoutItems, progress: Callable[[int], object]) -> np.ndarray:
        size = self.config.heldout.at_once(self.model.resolution)
        return grid_losses(self.model, self.model.unet, items, self.grid, size, progress)
