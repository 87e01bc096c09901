"""Batches of which a share are pictures that the base drew itself (``replay.share``)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from finetune.conditioning import Conditioning
from finetune.data import Batches, SamplePlan, keyed_seed
from finetune.retention.base_pictures import BasePictures


class ReplayBatches(Batches):
    """As its parent, with ``replayed`` samples of each batch from other pictures.

    Which places of a batch these are is drawn for each batch, so that a replayed sample has any timestep like another
    one. Both kinds go through their own pictures, a permutation for each pass; noise, timesteps and dropped captions are
    those of a training without replay.
    """

    def __init__(
        self, *arguments: object, pictures: BasePictures, replayed: int, **named: object
    ) -> None:
        """Prepare.

        Args:
            arguments, named: of :class:`Batches`.
            pictures: of the base. replayed: samples of a whole batch.
        """
        super().__init__(*arguments, **named)  # type: ignore[arg-type]
        self.pictures, self.replayed = pictures, replayed
        self._again = SamplePlan(keyed_seed(self.seed, "replay"), len(pictures))

    def _samples(
        self, number: int, which: Tensor, dropped: Tensor
    ) -> tuple[list[str], Tensor, Conditioning, Tensor | None]:
        size, few = self.batch_size, self.replayed
        generator = torch.Generator().manual_seed(keyed_seed(self.seed, "replayed", number))
        old = np.zeros(size, bool)
        old[torch.randperm(size, generator=generator)[:few].numpy()] = True
        indices = np.empty(size, np.int64)
        indices[~old] = self.plan(number * (size - few), size - few)
        indices[old] = self._again(number * few, few)
        mine, mask = torch.from_numpy(indices[self.share]), torch.from_numpy(old[self.share])
        keys, latents, parts, places = [""] * len(mine), None, [], []
        for source, rows in ((self.split, ~mask), (self.pictures, mask)):
            if not rows.any():
                continue
            some = mine[rows]
            for place, index in zip(rows.nonzero().flatten().tolist(), some.tolist(), strict=True):
                keys[place] = source.keys[index]
            clean = source.latents_of(some)
            latents = clean.new_empty((len(mine), *clean.shape[1:])) if latents is None else latents
            latents[rows] = clean
            parts.append(source.conditioning_of(some, which[rows], dropped[rows]))
            places.append(rows.nonzero().flatten())
        assert latents is not None
        conditioning = Conditioning.cat(parts).take(torch.cat(places).argsort())
        return keys, latents, conditioning, mask
