"""Losses with another's caption and with none, stored beside those with the pictures' own captions.

What is stored in ``losses.npz``, by the name of the pictures and the step:

``NAME/captions-shuffled/STEP``
    [3, items, bins, 1], see ``finetune.caption_gain.caption_effects``, of the items in
    ``NAME/captions-shuffled/keys``.
``NAME/captions-none/STEP``
    [items, bins, 1], with the empty caption. Those with own captions are there already.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from curate.run.progress import Bar
from evaluate.measure.grid import Grid, row_name
from finetune.caption_gain import (
    Exchanged,
    Thinned,
    caption_effects,
    fit,
    gains,
    without_caption,
)
from finetune.checkpoint import Checkpoint, weights_sha256
from finetune.heldout import HeldoutItems, relative
from finetune.intervals import Array, Estimate, group_means
from finetune.precision import computing_in


class CaptionLosses:
    """Caption gains of rows on one set of pictures; each row is measured when it is first asked for.

    Attributes:
        items: N pictures with their own captions.
        exchanged: the M of them that can be compared with another's caption.
    """

    def __init__(
        self,
        grid: Grid,
        rows: Sequence[Checkpoint | None],
        name: str,
        items: HeldoutItems,
        captions: Sequence[str],
        own: np.ndarray,
    ) -> None:
        """Put together what is known.

        Args:
            grid: that ``own`` was measured on.
            rows: None for the base, which is row 0, and the checkpoints.
            name: of the pictures, which their losses are stored under.
            items: N pictures.
            captions: [N], theirs.
            own: [rows, N, bins, draws], their losses with their own captions.
        """
        cells = Thinned.of(grid.grid)
        self.items = items
        self.exchanged = Exchanged.of(items, captions)
        self._grid, self._rows, self._name = grid.at(cells), rows, name
        self._own = cells.among(own)

    def against_other(self, row: int) -> Array:
        """[M] loss with another's caption minus loss with the own one, in units of the base's loss."""
        own, other, _ = self._exchanged(row)
        return gains(other, own, self._own[0], self.items.groups)

    def effect(self, row: int) -> Array:
        """[M] how much a row's predictions change with the caption, in the same unit."""
        return relative(self._exchanged(row)[2], self._own[0], self.items.groups)

    def fit(self, row: int) -> Estimate:
        """Of a row: its gain against another's caption, as a share of its effect or the base's, the larger.

        A training on wrong captions leaves a model that hardly reacts to any. Its own effect would then be
        nearly 0, and so the fit uncertain; measured by what captions did in the base, it is surely about 0.
        """
        groups = self.exchanged.own.groups
        effects = (self.effect(row), self.effect(0))
        larger = max(effects, key=lambda effect: group_means(effect, groups).mean())
        return fit(self.against_other(row), larger, groups)

    def against_none(self, row: int) -> Array:
        """[N] loss with the empty caption minus loss with the own one, in units of the base's loss."""
        empty = self._grid.model.encode_captions([""]).to("cpu")
        name = f"{self._name}/captions-none"
        items = {name: without_caption(self.items, empty)}
        none = self._grid.measure([self._rows[row]], items)[name][0]
        return gains(none, self._own[row], self._own[0], self.items.groups)

    def _exchanged(self, row: int) -> np.ndarray:
        """[3, M, bins, 1] of a row: own, other, effect."""
        grid, exchanged, stored = self._grid, self.exchanged, self._rows[row]
        weights = weights_sha256(stored)
        pair = (exchanged.own, exchanged.other)
        mark = " ".join(grid.fingerprint(weights, items) for items in pair)

        def compute() -> np.ndarray:
            unet = grid.run.unet_at(stored, device=grid.device)
            total = 2 * len(exchanged) * grid.grid.bins
            size, bar = grid.batch_size, Bar(total=total, unit="loss", desc="captions")
            with bar, computing_in(grid.precision, unet):
                return caption_effects(grid.model, unet, exchanged, grid.grid, size, bar.update)

        name = f"{self._name}/captions-shuffled"
        grid.store.put_keys(name, exchanged.own.keys)
        return grid.store.losses(row_name(name, stored), mark, compute)
