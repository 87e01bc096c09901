"""Batches of which a share are pictures that the base drew itself (``replay.share``)."""

from __future__ import annotations

from collections.abc import Sequence

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
        self, number: int, places: Sequence[int], which: Tensor, dropped: Tensor
    ) -> tuple[list[str], Tensor, Conditioning, Tensor | None]:
        size, few = self.batch_size, self.replayed
        generator = torch.Generator().manual_seed(keyed_seed(self.seed, "replayed", number))
        old = np.zeros(size, bool)
        old[torch.randperm(size, generator=generator)[:few].numpy()] = True
        indices = np.empty(size, np.int64)
        indices[~old] = self.plan(number * (size - few), size - few)
        indices[old] = self._again(number * few, few)
        mine, mask = torch.from_numpy(indices[self.share]), torch.from_numpy(old[self.share])
        found, order = [], []
        for read, rows in ((self._of_data, ~mask), (self._of_base, mask)):
            if rows.any():
                order.append(rows.nonzero().flatten())
                visited = [places[row] for row in order[-1].tolist()]
                found.append(read(mine[rows], visited, which[rows], dropped[rows]))
        keys, latents, conditioning = zip(*found, strict=True)
        back = torch.cat(order).argsort()
        named = [key for part in keys for key in part]
        return (
            [named[place] for place in back.tolist()],
            torch.cat(latents)[back],
            Conditioning.cat(conditioning).take(back),
            mask,
        )

    def _of_base(
        self, indices: Tensor, places: Sequence[int], which: Tensor, dropped: Tensor
    ) -> tuple[list[str], Tensor, Conditioning]:
        keys = [self.pictures.keys[index] for index in indices.tolist()]
        conditioning = self.pictures.conditioning_of(indices, which, dropped)
        return keys, self.pictures.latents_of(indices), conditioning
