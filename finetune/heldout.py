"""The held-out loss: the same pictures at the same timesteps with the same noise for every model.

Because only the weights differ between two measurements, differences are paired per picture, which
takes 20 to 60 times fewer pictures than comparing means.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import numpy as np
import torch
from torch import Tensor, nn

from finetune.cache import EncodedSplit
from finetune.conditioning import Conditioning
from finetune.data import keyed_seed
from finetune.intervals import group_means
from finetune.latents import Latents, by_shape, of_one_shape
from finetune.models.interface import LatentDiffusion
from finetune.objective import denoising_loss

# Bins whose base loss is below this share of the largest are left out of relative losses: at most noise
# there is next to nothing to predict, and ratios vary by tens of percent without any meaning.
NEGLIGIBLE_BIN = 0.02


@dataclass(frozen=True, slots=True)
class HeldoutGrid:
    """Timesteps at the midpoints of strata, and noise that depends on a picture's key and the cell.

    Attributes:
        bins: B, equal intervals of the timesteps. draws: R, noises for each of them.
        seed: of the noise.
    """

    bins: int = 10
    draws: int = 2
    seed: int = 0

    def timesteps(self, total: int) -> Tensor:
        """[B, R] int64: t = floor((b + (r + 1/2) / R) T / B) with T = ``total``.

        >>> HeldoutGrid(bins=2, draws=2).timesteps(1000).tolist()
        [[125, 375], [625, 875]]
        """
        b = torch.arange(self.bins, dtype=torch.float64)[:, None]
        r = torch.arange(self.draws, dtype=torch.float64)[None, :]
        return ((b + (r + 0.5) / self.draws) * total / self.bins).long()

    def noise(self, key: str, b: int, r: int, shape: torch.Size) -> Tensor:
        """Standard normal, fp32, on the CPU; independent of order, batch size and other pictures."""
        generator = torch.Generator().manual_seed(keyed_seed(key, b, r, self.seed))
        return torch.randn(shape, generator=generator)


@dataclass(frozen=True, slots=True)
class HeldoutItems:
    """The pictures that are measured.

    Attributes:
        keys: N, the shards' keys.
        latents: [N, C, h, w] fp32, on the CPU; with aspect buckets of several shapes.
        conditioning: fp32, of each picture's first caption.
        groups: the duplicate group of each.
    """

    keys: list[str]
    latents: Latents
    conditioning: Conditioning
    groups: list[str]

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, share: slice) -> HeldoutItems:
        """Some of the items."""
        return HeldoutItems(
            self.keys[share],
            self.latents[share],
            self.conditioning.take(share),
            self.groups[share],
        )


GroupsOf = Callable[[list[str]], list[str]]
"""Gives the duplicate groups of keys, see ``finetune.sidecars``."""

_POOL = (
    1 << 14
)  # samples among which groups are spread; more would be read from the tables for nothing


def choose(
    split: EncodedSplit,
    count: int,
    groups_of: GroupsOf | None = None,
    without: Set[str] = frozenset(),
) -> Tensor:
    """Indices [at most ``count``] of the samples with the smallest hashed keys, so that added data changes few.

    Args:
        split: to choose from.
        count: how many.
        groups_of: spreads the choice over groups: the first sample of each comes before the second of any,
            as a group counts once however many of its samples are measured. A smaller count then gives the
            first of a larger one's.
        without: keys that are not chosen.
    """
    there = [index for index, key in enumerate(split.keys) if key not in without]
    order = sorted(there, key=lambda index: keyed_seed("heldout", split.keys[index]))
    if groups_of is not None:
        pool, rest = order[: max(count, _POOL)], order[max(count, _POOL) :]
        order = [*spread(pool, groups_of([split.keys[index] for index in pool])), *rest]
    return torch.tensor(order[:count], dtype=torch.int64)


def spread(order: Sequence[int], groups: Sequence[str]) -> list[int]:
    """The same with the first of each group in front, then the second of each, and so on.

    >>> spread([5, 3, 8, 1], ["a", "a", "a", "b"])
    [5, 1, 3, 8]
    """
    seen: Counter[str] = Counter()
    ranks = []
    for group in groups:
        ranks.append(seen[group])
        seen[group] += 1
    places = sorted(
        range(len(order)), key=lambda place: ranks[place]
    )  # which keeps equals in order
    return [order[place] for place in places]


def items_of(
    split: EncodedSplit, count: int, groups_of: GroupsOf, without: Set[str] = frozenset()
) -> HeldoutItems:
    """At most ``count`` items of ``split``, spread over groups, see :func:`choose`, with their first captions."""
    indices = choose(split, count, groups_of, without)
    keys = [split.keys[index] for index in indices.tolist()]
    return HeldoutItems(
        keys=keys,
        latents=split.latents_of(indices),
        conditioning=split.conditioning_of(indices),
        groups=groups_of(keys),
    )


@torch.no_grad()
def grid_losses(
    model: LatentDiffusion,
    unet: nn.Module,
    items: HeldoutItems,
    grid: HeldoutGrid,
    batch_size: int,
    progress: Callable[[int], object] | None = None,
) -> np.ndarray:
    """The loss of every item in every cell of the grid.

    Args:
        model: gives the noise levels and knows how its U-Net is called.
        unet: on the model's device; left in the mode it was in. The global random state is not touched.
        items: on the CPU.
        grid: see :class:`HeldoutGrid`.
        batch_size: forward passes at a time; the result does not depend on it beyond rounding.
        progress: called with the number of forward passes after each batch.

    Returns:
        float32 [items, bins, draws].
    """
    losses = np.empty((len(items), grid.bins, grid.draws), np.float32)
    for cells in batches_of_cells(unet, losses.shape, batch_size, items.latents):
        losses[cells] = _cell_losses(model, unet, items, grid, cells).cpu().numpy()
        if progress:
            progress(len(cells[0]))
    return losses


Cells = tuple[list[int], list[int], list[int]]  # items, bins and draws


def batches_of_cells(
    unet: nn.Module, shape: tuple[int, ...], batch_size: int, latents: Latents
) -> Iterator[Cells]:
    """All cells of a grid of ``shape`` [items, bins, draws], so many at a time, of items whose ``latents`` have one shape.

    ``unet`` is in evaluation mode meanwhile, and in the mode it was in after the last batch.
    """
    training = unet.training
    unet.eval()
    order = by_shape(latents)
    for _, items in groupby(order, key=lambda item: latents[item].shape):
        cells = [(item, *cell) for item in items for cell in np.ndindex(shape[1:])]
        for start in range(0, len(cells), batch_size):
            i, b, r = map(list, zip(*cells[start : start + batch_size], strict=True))
            yield i, b, r
    unet.train(training)


def _cell_losses(
    model: LatentDiffusion,
    unet: nn.Module,
    items: HeldoutItems,
    grid: HeldoutGrid,
    cells: Cells,
) -> Tensor:
    """The losses [n] of n cells, given as their items, bins and draws, in one forward pass."""
    i, b, r = cells
    latents, device = of_one_shape(items.latents[i]), model.device
    keys = [items.keys[item] for item in i]
    noise = [grid.noise(*cell, latents.shape[1:]) for cell in zip(keys, b, r, strict=True)]
    return denoising_loss(
        partial(model.predict, unet),
        model.schedule,
        latents.to(device),
        torch.stack(noise).to(device),
        grid.timesteps(len(model.schedule))[b, r].to(device),
        items.conditioning.take(i).to(device),
    )


def relative(
    losses: np.ndarray,
    base_losses: np.ndarray,
    groups: Sequence[str] | None = None,
    levels: slice = slice(None),
) -> np.ndarray:
    """Each item's loss in units of the base model's mean loss, every noise level counting the same.

    Two thirds of a plain mean over uniform timesteps come from low noise, where detail is decided; here
    composition, decided at high noise, counts alike. Bins with a negligible base loss
    (``NEGLIGIBLE_BIN``) are left out.

    Args:
        losses: [N, B, R] of the model in question.
        base_losses: [N, B, R] of the base model, same items and grid.
        groups: [N], the duplicate group of each item; each group counts once in the base's mean. None
            makes every item its own.
        levels: the bins that count, of those that are not negligible; all by default.

    Returns:
        float64 [N]; the base model's own mean over groups is 1.

    Raises:
        ValueError: all of ``levels`` are negligible.
    """
    counted = np.flatnonzero(counted_bins(base_losses, groups))
    counted = counted[np.isin(counted, np.arange(losses.shape[1])[levels])]
    if not len(counted):
        raise ValueError(f"the base's loss is negligible in all of the noise levels {levels}")
    base = _base_by_bin(base_losses, groups)
    by_bin = losses.astype(np.float64).mean(axis=2)
    return (by_bin[:, counted] / base[counted]).mean(axis=1)


def counted_bins(base_losses: np.ndarray, groups: Sequence[str] | None = None) -> np.ndarray:
    """Which bins relative losses count, bool [B], from the base's losses [N, B, R]."""
    base = _base_by_bin(base_losses, groups)
    return base >= NEGLIGIBLE_BIN * base.max()


def _base_by_bin(base_losses: np.ndarray, groups: Sequence[str] | None) -> np.ndarray:
    by_item = base_losses.astype(np.float64).mean(axis=2)
    return (by_item if groups is None else group_means(by_item, groups)).mean(axis=0)
