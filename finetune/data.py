"""The batches of a training, each made from the seed and its number alone.

So a run that was resumed, or is on another number of processes, has the samples and noise of one that
was never interrupted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from finetune.cache import EncodedSplit
from finetune.conditioning import Conditioning
from finetune.config import ObjectiveConfig
from finetune.latents import of_one_shape


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


class WeightedPlan:
    """The same over several sources of pictures, of which each has a weight.

    A round takes ``weight * size`` pictures of a source, where the largest weight counts as 1; fractions are carried
    over from round to round. So after R rounds a source has given floor(R * weight * size) samples, and its share of
    all tends to weight * size over the sum of these. Within a round the sources are mixed at random. Each source goes
    through its own pictures, a permutation for each pass, whatever the others do.

    Args:
        seed: of all orders.
        sources: the indices of each source's pictures, by a name that its order is drawn by.
        weights: of each, and of more sources if they count for the largest weight.
    """

    def __init__(
        self, seed: int, sources: Mapping[str, np.ndarray], weights: Mapping[str, float]
    ) -> None:
        self.seed, self.sources = seed, dict(sorted(sources.items()))
        largest = max(Fraction(str(weight)) for weight in weights.values())
        self._each = {
            name: Fraction(str(weights[name])) / largest * len(places)
            for name, places in self.sources.items()
        }
        self._rounds: dict[int, np.ndarray] = {}

    def __call__(self, start: int, count: int) -> np.ndarray:
        """Indices of the ``count`` samples from position ``start``, int64."""
        number, parts, end = self._round_at(start), [], start + count
        used: dict[int, np.ndarray] = {}
        while (first := self.before(number)) < end:
            used[number] = self._rounds[number] if number in self._rounds else self._round(number)
            parts.append(used[number][max(start - first, 0) : end - first])
            number += 1
        self._rounds = used
        return np.concatenate(parts)

    @property
    def shares(self) -> dict[str, float]:
        """Of all samples, by source."""
        total = sum(self._each.values())
        return {name: float(each / total) for name, each in self._each.items()}

    def _before(self, name: str, number: int) -> int:
        """Samples of a source before round ``number``."""
        return int(number * self._each[name])

    def before(self, number: int) -> int:
        """Samples before round ``number``."""
        return sum(self._before(name, number) for name in self._each)

    def _round_at(self, position: int) -> int:
        """The round that a position is in."""
        number = int(position / sum(self._each.values()))
        while self.before(number + 1) <= position:
            number += 1
        return number

    def _round(self, number: int) -> np.ndarray:
        """Indices of all samples of a round, in order."""
        found = np.concatenate([self._of_source(name, number) for name in self.sources])
        mixed = np.random.default_rng(keyed_seed(self.seed, "mix", number)).permutation(len(found))
        place = np.empty(len(found), np.int64)
        # Where each source's samples go; among these places they keep their order.
        start = 0
        for name in self.sources:
            count = self._before(name, number + 1) - self._before(name, number)
            place[start : start + count] = np.sort(mixed[start : start + count])
            start += count
        result = np.empty(len(found), np.int64)
        result[place] = found
        return result

    def _of_source(self, name: str, number: int) -> np.ndarray:
        places, seed = self.sources[name], keyed_seed(self.seed, "source", name)
        serials = np.arange(self._before(name, number), self._before(name, number + 1))
        passes, offsets = np.divmod(serials, len(places))
        orders = {
            int(each): epoch_order(seed, int(each), len(places)) for each in np.unique(passes)
        }
        picked = [orders[int(each)][offset] for each, offset in zip(passes, offsets, strict=True)]
        return places[np.array(picked, np.int64)]


@dataclass(frozen=True, slots=True)
class Batch:
    """One process's share of a batch.

    Attributes:
        keys: the shards' keys of the samples.
        latents: clean [B, C, h, w], fp32. noise: like it, what the target is made of.
        timesteps: [B] int64.
        conditioning: of the captions, or of the empty one; fp32.
        added: the noise that the latents get, where that is another.
        replayed: bool [B], the samples that are none of the data, see ``finetune.retention.replay``; None where all are.
    """

    keys: list[str]
    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    conditioning: Conditioning
    added: Tensor | None = None
    replayed: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """The same batch on ``device``."""
        return Batch(
            self.keys,
            self.latents.to(device),
            self.noise.to(device),
            self.timesteps.to(device),
            self.conditioning.to(device),
            None if self.added is None else self.added.to(device),
            None if self.replayed is None else self.replayed.to(device),
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
                None if self.added is None else self.added[part],
                None if self.replayed is None else self.replayed[part],
            )


class Batches:
    """The share that one of ``world_size`` processes has of each of the run's batches, by number.

    Timesteps, captions and dropout are drawn for the whole batch from one CPU generator, keyed by seed and batch
    number, and then shared out; the noise of a sample from one of its own, keyed by seed, place in the run and the
    picture's key, so that each process draws its share alone. Timesteps are by default stratified over the batch,
    and a sample's stratum is as random as its place in the order: each sample's timestep is uniform, and the batch
    mean varies less (Kingma et al. 2021, appendix I.1).
    """

    def __init__(
        self,
        split: EncodedSplit,
        *,
        batch_size: int,
        caption_dropout: float,
        timesteps: int,
        seed: int,
        objective: ObjectiveConfig | None = None,
        rank: int = 0,
        world_size: int = 1,
        plan: Callable[[int, int], np.ndarray] | None = None,
    ) -> None:
        self.split = split
        self.batch_size = batch_size
        self.caption_dropout = caption_dropout
        self.timesteps = timesteps
        self.seed = seed
        self.objective = objective or ObjectiveConfig()
        self.share = slice(rank, None, world_size)
        self.plan = plan or SamplePlan(seed, len(split))
        self.replayed = 0  # samples of a whole batch, see ``finetune.retention.replay``

    def __call__(self, number: int) -> Batch:
        """Batch ``number``, counted from zero."""
        size = self.batch_size
        generator = torch.Generator().manual_seed(keyed_seed(self.seed, "batch", number))
        timesteps = self._timesteps(generator)
        which_caption = torch.rand(size, generator=generator)[self.share]
        dropped = (torch.rand(size, generator=generator) < self.caption_dropout)[self.share]
        places = range(number * size, (number + 1) * size)[self.share]
        keys, latents, conditioning, replayed = self._samples(
            number, places, which_caption, dropped
        )
        noise, added = self._noise(places, keys, latents.shape[1:])
        return Batch(
            keys=keys,
            latents=latents,
            noise=noise,
            timesteps=timesteps[self.share],
            conditioning=conditioning,
            added=added,
            replayed=replayed,
        )

    def _samples(
        self, number: int, places: Sequence[int], which: Tensor, dropped: Tensor
    ) -> tuple[list[str], Tensor, Conditioning, Tensor | None]:
        """Keys, latents and conditioning of this process's share, and which of them are replayed.

        Args:
            number: of the batch. places: of the samples in the run, counted from zero.
            which: [B] in [0, 1), for one of several captions. dropped: [B] bool.
        """
        size = self.batch_size
        indices = torch.from_numpy(self.plan(number * size, size)[self.share])
        return *self._of_data(indices, places, which, dropped), None

    def _of_data(
        self, indices: Tensor, places: Sequence[int], which: Tensor, dropped: Tensor
    ) -> tuple[list[str], Tensor, Conditioning]:
        """Keys, latents and conditioning of some samples of the data."""
        visits = self._visits(places)
        views = self._views(visits)
        latents = self._latents(indices, views, visits)
        keys = [self.split.keys[index] for index in indices]
        return keys, latents, self.split.conditioning_of(indices, which, dropped, views)

    def _visits(self, places: Sequence[int]) -> list[torch.Generator]:
        """A generator for each sample of the share, keyed by seed and place among all samples; none where nothing is drawn."""
        if self.split.views == 1 and not self.split.has_deviations:
            return []
        seeds = (keyed_seed(self.seed, "visit", place) for place in places)
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    def _views(self, visits: Sequence[torch.Generator]) -> Tensor | None:
        """Which view of its picture each sample is; None where there is one."""
        if self.split.views == 1:
            return None
        return torch.stack([torch.randint(self.split.views, (), generator=own) for own in visits])

    def _latents(
        self, indices: Tensor, views: Tensor | None, visits: Sequence[torch.Generator]
    ) -> Tensor:
        """The VAE's means, or a sample of its posterior for each visit, where deviations are kept."""
        means = of_one_shape(self.split.latents_of(indices, views))
        if not self.split.has_deviations:
            return means
        drawn = torch.stack([torch.randn(means.shape[1:], generator=own) for own in visits])
        return means + of_one_shape(self.split.deviations_of(indices, views)) * drawn

    def _timesteps(self, generator: torch.Generator) -> Tensor:
        """Of the whole batch, int64; a share u of the way through a distribution for each sample."""
        chosen, size = self.objective, self.batch_size
        share = torch.rand(size, generator=generator, dtype=torch.float64)
        if chosen.timesteps != "uniform":
            share = (torch.arange(size) + share) / size
        if chosen.timesteps == "logit_normal":
            share = torch.sigmoid(chosen.logit_mean + chosen.logit_std * torch.special.ndtri(share))
        return (share * self.timesteps).long().clamp_(max=self.timesteps - 1)

    def _noise(
        self, places: Sequence[int], keys: Sequence[str], latent: torch.Size
    ) -> tuple[Tensor, Tensor | None]:
        """Of the share: what the target is made of, and what is added to the latents where that is another.

        Args:
            places: of the samples in the run, counted from zero. keys: of their pictures.
            latent: the shape of one.
        """
        chosen = self.objective
        noises, added = [], []
        for place, key in zip(places, keys, strict=True):
            seed = keyed_seed(self.seed, "noise", place, key)
            generator = torch.Generator().manual_seed(seed)
            noise = torch.randn(latent, generator=generator)
            if chosen.noise_offset:
                offset = torch.randn((latent[0], 1, 1), generator=generator)
                noise = noise + chosen.noise_offset * offset
            noises.append(noise)
            if chosen.input_perturbation:
                more = torch.randn(latent, generator=generator)
                added.append(noise + chosen.input_perturbation * more)
        return torch.stack(noises), torch.stack(added) if added else None
