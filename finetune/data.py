"""The batches of a training, each made from the seed and its number alone.

So a run that was resumed, or is on another number of processes, has the samples and noise of one that
was never interrupted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from finetune.cache import EncodedSplit
from finetune.conditioning import Conditioning


def keyed_seed(*parts: object) -> int:
    """63 bits that depend on the parts alone, not on process or platform."""
    text = "\x00".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


def epoch_order(seed: int, epoch: int, size: int) -> np.ndarray:
    """A permutation of ``range(size)``, int64."""
    return np.random.default_rng(keyed_seed(seed, "order", epoch)).permutation(size)


class SamplePlan:
    """The endless sequence of sample indices: a permutation for each epoch, batches may span two epochs."""

    def __init__(self, seed: int, size: int) -> None:
        self.seed, self.size = seed, size
        self._orders: dict[int, np.ndarray] = {}

    def __call__(self, start: int, count: int) -> np.ndarray:
        """Indices of the ``count`` samples from position ``start``, int64."""
        epochs, offsets = np.divmod(np.arange(start, start + count), self.size)
        self._orders = {
            int(epoch): self._orders[epoch]
            if epoch in self._orders
            else epoch_order(self.seed, int(epoch), self.size)
            for epoch in np.unique(epochs)
        }
        return np.array(
            [self._orders[epoch][offset] for epoch, offset in zip(epochs, offsets, strict=True)]
        )


@dataclass(frozen=True, slots=True)
class Batch:
    """One process's share of a batch.

    Attributes:
        keys: the shards' keys of the samples.
        latents: clean [B, C, h, w], fp32. noise: like it.
        timesteps: [B] int64.
        conditioning: of the captions, or of the empty one; fp32.
    """

    keys: list[str]
    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    conditioning: Conditioning

    def to(self, device: torch.device) -> Batch:
        """The same batch on ``device``."""
        return Batch(
            self.keys,
            self.latents.to(device),
            self.noise.to(device),
            self.timesteps.to(device),
            self.conditioning.to(device),
        )

    def split(self, pieces: int) -> Iterator[Batch]:
        """Micro-batches of equal size."""
        size = len(self.keys) // pieces
        for start in range(0, len(self.keys), size):
            part = slice(start, start + size)
            yield Batch(
                self.keys[part],
                self.latents[part],
                self.noise[part],
                self.timesteps[part],
                self.conditioning.take(part),
            )


class Batches:
    """The share that one of ``world_size`` processes has of each of the run's batches, by number.

    Randomness is drawn for the whole batch from one CPU generator, keyed by seed and batch number, and
    then shared out. Timesteps are stratified over the batch, and a sample's stratum is as random as its
    place in the order: each sample's timestep is uniform, and the batch mean varies less (Kingma et al.
    2021, appendix I.1).
    """

    def __init__(
        self,
        split: EncodedSplit,
        *,
        batch_size: int,
        caption_dropout: float,
        timesteps: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.split = split
        self.batch_size = batch_size
        self.caption_dropout = caption_dropout
        self.timesteps = timesteps
        self.seed = seed
        self.share = slice(rank, None, world_size)
        self.plan = SamplePlan(seed, len(split))

    def __call__(self, number: int) -> Batch:
        """Batch ``number``, counted from zero."""
        size = self.batch_size
        generator = torch.Generator().manual_seed(keyed_seed(self.seed, "batch", number))
        strata = torch.arange(size) + torch.rand(size, generator=generator, dtype=torch.float64)
        timesteps = (strata * self.timesteps / size).long().clamp_(max=self.timesteps - 1)
        which_caption = torch.rand(size, generator=generator)[self.share]
        dropped = (torch.rand(size, generator=generator) < self.caption_dropout)[self.share]
        noise = torch.randn((size, *self.split.latent_shape), generator=generator)
        indices = torch.from_numpy(self.plan(number * size, size)[self.share])
        return Batch(
            keys=[self.split.keys[index] for index in indices],
            latents=self.split.latents_of(indices),
            noise=noise[self.share],
            timesteps=timesteps[self.share],
            conditioning=self.split.conditioning_of(indices, which_caption, dropped),
        )
