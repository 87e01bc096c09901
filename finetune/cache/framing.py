"""Which parts of a curation's pictures are encoded: squares, or the sizes of aspect buckets, one view or several."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from curate.run.manifest import ShardInfo
from finetune.buckets import Sides, nearest
from finetune.crop import Crop
from finetune.sidecars import sizes_of

_CROP = "centre of the shorter side, bicubic"


@dataclass(frozen=True, slots=True)
class View:
    """What the latents of one folder have in common.

    Attributes:
        target: height and width of what is encoded.
    """

    target: Sides

    def crop(self, size: tuple[int, int]) -> Crop:
        """How it is cut out of a picture of a width and a height."""
        return Crop.of(size, self.target)

    def described(self) -> str:
        """All that its latents depend on beside the VAE and the picture; of squares as all versions have it."""
        height, width = self.target
        return f"{_CROP} {height}" if height == width else f"{_CROP} {height}x{width}"


@dataclass(frozen=True, slots=True)
class Framing:
    """How the pictures of a curation are cut out.

    Attributes:
        curate_dir: whose tables know the pictures' sizes; they are not looked at where all views are squares.
        buckets: see ``finetune.buckets``; none for squares of the model's resolution.
    """

    curate_dir: Path
    buckets: tuple[Sides, ...] = ()

    def views(self, resolution: int, shard: ShardInfo) -> Callable[[str], tuple[View, ...]]:
        """Gives the views of each of a shard's pictures by its key, the plain one first; as many of each.

        Raises:
            UserError: the shard's table is damaged, or does not know the pictures' sizes.
        """
        if not self.buckets:
            square = (View((resolution, resolution)),)
            return lambda _: square
        views = [(View(target),) for target in self.buckets]
        sizes = sizes_of(self.curate_dir, shard)
        chosen = nearest(np.array(list(sizes.values()), np.int64).reshape(-1, 2).T, self.buckets)
        found = {key: views[place] for key, place in zip(sizes, chosen.tolist(), strict=True)}
        return found.__getitem__
