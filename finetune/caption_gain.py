"""Caption gain: how much less a picture's loss is with its own caption than with another's, or with none.

The picture, the timesteps and the noise are the same for all three, so only the caption differs. The
measure needs no other model: what judges the captions is the model that they are trained into. Clark and
Jaini (2023, "Text-to-Image Diffusion Models are Zero-Shot Classifiers") classify pictures by it.

How large the gain can be differs between models by orders of magnitude, so no gain is small or large in
itself. The effect gives its scale: the squared distance between the two predictions. A model that
predicts the mean of what the picture can be, given the noisy picture and the caption, has

    E |f(c') - y|^2 - E |f(c) - y|^2 = E |f(c) - f(c')|^2

for every other caption c' that was chosen without looking at the picture, because y - f(c) is then
uncorrelated with all that follows from the noisy picture and the captions. So the *fit*, gain divided by
effect, is 1 for such a model and the right captions. It is 0 for captions that were shuffled: own and
other captions are then drawn alike. In between, either some of the captions are wrong or the model does
not know such pictures; the number alone does not tell which.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from finetune.conditioning import Conditioning
from finetune.data import keyed_seed
from finetune.heldout import Cells, HeldoutGrid, HeldoutItems, batches_of_cells, relative
from finetune.intervals import Array, Estimate, ratio
from finetune.latents import of_one_shape
from finetune.models.interface import LatentDiffusion
from finetune.objective import mean_error


@dataclass(frozen=True, slots=True)
class Thinned(HeldoutGrid):
    """The cells of a grid at which captions are compared: one noise at every second noise level.

    Pictures and captions differ so much more than noises and neighbouring noise levels that all the other
    cells narrow no interval: on 64 pictures of the demo it was 0.26 wide with 20 cells, 0.27 with 5.

    Attributes:
        bins, draws: of what is left. whole: the grid that the cells belong to.
    """

    bins: int = 5
    draws: int = 1
    whole: HeldoutGrid = field(default_factory=HeldoutGrid)

    @classmethod
    def of(cls, grid: HeldoutGrid) -> Thinned:
        """Those cells of ``grid``."""
        return cls(bins=max(1, grid.bins // 2), seed=grid.seed, whole=grid)

    def timesteps(self, total: int) -> Tensor:
        """[bins, 1] int64, of the whole grid.

        >>> Thinned.of(HeldoutGrid(bins=4, draws=2)).timesteps(1000).tolist()
        [[312], [812]]
        """
        return self.whole.timesteps(total)[self._bins, :1]

    def noise(self, key: str, b: int, r: int, shape: torch.Size) -> Tensor:
        """The whole grid's noise in that cell."""
        return self.whole.noise(key, self._bins[b], r, shape)

    def among(self, losses: np.ndarray) -> np.ndarray:
        """[..., bins, 1], those of the whole grid's losses [..., B, R]."""
        return losses[..., self._bins, :1]

    @property
    def _bins(self) -> list[int]:
        return [min(2 * b + 1, self.whole.bins - 1) for b in range(self.bins)]


def reads_as(caption: str) -> str:
    """What is compared to tell whether two captions read alike: their words, without case and signs.

    >>> reads_as("  A red heart! "), reads_as("a RED  Heart")
    ('a red heart', 'a red heart')
    """
    text = unicodedata.normalize("NFKC", caption).casefold()
    words = "".join(c if unicodedata.category(c)[0] in "LMN" else " " for c in text)
    return " ".join(words.split()) or " ".join(text.split())


def partners(keys: Sequence[str], captions: Sequence[str], groups: Sequence[str]) -> np.ndarray:
    """For each item the place of the item whose caption it gets; -1 where there is none.

    Every caption is given away once at most, so that own and other captions are the same ones. The other
    caption reads differently and belongs to another duplicate group. As few items as possible are left
    out. The choice follows from the keys, whatever order they are in.

    Args:
        keys, captions, groups: [N], of the items.

    Returns:
        int64 [N].
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    count = len(keys)
    places = sorted(range(count), key=lambda i: (keyed_seed("caption", keys[i]), keys[i]))
    texts = np.array([reads_as(captions[place]) for place in places], dtype=object)
    owners = np.array([groups[place] for place in places], dtype=object)
    allowed = (texts[:, None] != texts[None, :]) & (owners[:, None] != owners[None, :])
    # Turned by one, so that the first free place of most items is the next item, which makes a circle.
    turned = np.roll(allowed, -1, axis=1)
    matched = maximum_bipartite_matching(csr_array(turned), perm_type="column").astype(np.int64)
    found = np.full(count, -1, np.int64)
    has = matched >= 0
    order = np.array(places, np.int64)
    found[order[has]] = order[(matched[has] + 1) % count]
    return found


@dataclass(frozen=True, slots=True)
class Exchanged:
    """Those items that can be compared with another's caption.

    Attributes:
        places: int64 [M], which of the N items they are.
        own: [M] with their own captions. other: the same with another's.
    """

    places: np.ndarray
    own: HeldoutItems
    other: HeldoutItems

    @classmethod
    def of(cls, items: HeldoutItems, captions: Sequence[str]) -> Exchanged:
        """Give the captions [N] of ``items`` to each other, see :func:`partners`."""
        partner = partners(items.keys, captions, items.groups)
        places = np.flatnonzero(partner >= 0)
        own = at(items, places)
        other = own.conditioning.with_captions_of(items.conditioning.take(partner[places].tolist()))
        return cls(places, own, replace(own, conditioning=other))

    def __len__(self) -> int:
        return len(self.places)


def at(items: HeldoutItems, places: np.ndarray) -> HeldoutItems:
    """Some of the items, by their places."""
    chosen = places.tolist()
    return HeldoutItems(
        keys=[items.keys[place] for place in chosen],
        latents=items.latents[chosen],
        conditioning=items.conditioning.take(chosen),
        groups=[items.groups[place] for place in chosen],
    )


def without_caption(items: HeldoutItems, empty: Conditioning) -> HeldoutItems:
    """The same items with the empty caption, as caption dropout trains it.

    Args:
        items: N.
        empty: of the empty caption alone, on the CPU.
    """
    dropped = torch.ones(len(items), dtype=torch.bool)
    return replace(items, conditioning=items.conditioning.drop(dropped, empty))


@torch.no_grad()
def caption_effects(
    model: LatentDiffusion,
    unet: nn.Module,
    exchanged: Exchanged,
    grid: HeldoutGrid,
    batch_size: int,
    progress: Callable[[int], object] | None = None,
) -> np.ndarray:
    """Losses with own and with other captions, and the squared distance between the two predictions.

    Args:
        model: gives the noise levels and knows how its U-Net is called.
        unet: on the model's device; left in the mode it was in.
        exchanged: M items with both captions.
        grid: see :class:`finetune.heldout.HeldoutGrid`.
        batch_size: forward passes at a time, at least two; the result does not depend on it beyond
            rounding.
        progress: called with the number of forward passes after each batch.

    Returns:
        float32 [3, M, bins, draws]: own, other, effect; all means over channels and positions.
    """
    shape = (len(exchanged), grid.bins, grid.draws)
    found = np.empty((3, *shape), np.float32)
    latents = exchanged.own.latents
    for cells in batches_of_cells(unet, shape, max(1, batch_size // 2), latents):
        found[(slice(None), *cells)] = _pair(model, unet, exchanged, grid, cells).cpu().numpy()
        if progress:
            progress(2 * len(cells[0]))
    return found


def _pair(
    model: LatentDiffusion,
    unet: nn.Module,
    exchanged: Exchanged,
    grid: HeldoutGrid,
    cells: Cells,
) -> Tensor:
    """[3, n] of n cells, given as their items, bins and draws: both captions in one forward pass."""
    i, b, r = cells
    own, device = exchanged.own, model.device
    latents = of_one_shape(own.latents[i]).to(device)
    keys = [own.keys[item] for item in i]
    noises = [grid.noise(*cell, latents.shape[1:]) for cell in zip(keys, b, r, strict=True)]
    noise = torch.stack(noises).to(device)
    timesteps = grid.timesteps(len(model.schedule))[b, r].to(device)
    noisy = model.schedule.add_noise(latents, noise, timesteps)
    target = model.schedule.target(latents, noise, timesteps)
    both = [each.conditioning.take(i) for each in (own, exchanged.other)]
    predicted = model.predict(
        unet, noisy.repeat(2, 1, 1, 1), timesteps.repeat(2), Conditioning.cat(both).to(device)
    )
    mine, other = predicted.float().chunk(2)
    differences = (mine - target, other - target, mine - other)
    pictures = both[0].to(device)
    return torch.stack([mean_error(each.square(), pictures) for each in differences])


def gains(
    losses: np.ndarray, own: np.ndarray, base_own: np.ndarray, groups: Sequence[str]
) -> Array:
    """Each item's caption gain in units of the base's loss with its own captions, positive is better.

    Noise levels count as in :func:`finetune.heldout.relative`.

    Args:
        losses: [M, B, R], with another's caption, or with none.
        own: [M, B, R], of the same model with own captions.
        base_own: [N, B, R], of the base with own captions, whatever items are measured.
        groups: [N], the duplicate groups of those.

    Returns:
        float64 [M].
    """
    return relative(losses, base_own, groups) - relative(own, base_own, groups)


def fit(gain: Array, effect: Array, groups: Sequence[str]) -> Estimate:
    """Mean gain divided by mean effect, with its interval over groups.

    Args:
        gain, effect: [M], in the same unit.
        groups: [M], the duplicate groups of the items.
    """
    return ratio(gain, effect, groups)
