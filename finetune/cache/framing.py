"""Which parts of a curation's pictures are encoded: squares, or the sizes of aspect buckets, one view or several."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from curate.run.manifest import ShardInfo
from finetune.buckets import Sides, movable, nearest
from finetune.config import TrainConfig
from finetune.crop import CENTRE, Crop
from finetune.sidecars import sizes_of

_CROP = "centre of the shorter side, bicubic"


@dataclass(frozen=True, slots=True)
class View:
    """What the latents of one folder have in common.

    Attributes:
        target: height and width of what is encoded.
        crop: 0 is the centre; each further number has, for each picture, a place of its own at random.
        mirrored: whether left and right change places.
        posterior: whether the VAE's standard deviation is there beside its mean. half: whether they are fp16.
    """

    target: Sides
    crop: int = 0
    mirrored: bool = False
    posterior: bool = False
    half: bool = False

    def cropped(self, size: tuple[int, int], digest: bytes) -> Crop:
        """How it is cut out of a picture of a width, a height and a content hash."""
        return Crop.of(size, self.target, self._place(digest), self.mirrored)

    def _place(self, digest: bytes) -> tuple[float, float]:
        if not self.crop:
            return CENTRE
        seed = [int.from_bytes(digest, "little"), self.crop]
        down, across = np.random.default_rng(seed).random(2).tolist()
        return down, across

    def described(self) -> str:
        """All that its latents depend on beside the VAE and the picture; of squares as all versions have it."""
        height, width = self.target
        text = f"{_CROP} {height}" if height == width else f"{_CROP} {height}x{width}"
        text += f" crop {self.crop}" if self.crop else ""
        marks = {"mirrored": self.mirrored, "posterior": self.posterior, "fp16": self.half}
        return " ".join([text, *(mark for mark, is_so in marks.items() if is_so)])


@dataclass(frozen=True, slots=True)
class Framing:
    """How the pictures of a curation are cut out.

    Attributes:
        curate_dir: whose tables know the pictures' sizes; they are not looked at for squares cut out at the centre.
        buckets: see ``finetune.buckets``; none for squares of the model's resolution.
        crops: of each picture; of one that is no longer than what is cut out, all are the centre.
        flip: whether each is there mirrored, too.
        posterior, half: see :class:`View`.
    """

    curate_dir: Path
    buckets: tuple[Sides, ...] = ()
    crops: int = 1
    flip: bool = False
    posterior: bool = False
    half: bool = False

    @classmethod
    def of(cls, config: TrainConfig, side: str, *, all_views: bool = False) -> Framing:
        """That of a training's data: of ``side="train"`` all views that are trained on, or the plain one alone."""
        plain = cls(config.curate_dir, config.buckets.sides(config.model.resolution))
        if side != "train":
            return plain
        stored = replace(
            plain,
            posterior=config.cache.latents == "posterior",
            half=config.cache.precision == "fp16",
        )
        data = config.data
        return replace(stored, crops=data.crops, flip=data.flip) if all_views else stored

    def views(self, resolution: int, shard: ShardInfo) -> Callable[[str], tuple[View, ...]]:
        """Gives the views of each of a shard's pictures by its key, the plain one first; as many of each.

        Raises:
            UserError: the shard's table is damaged, or does not know the pictures' sizes.
        """
        buckets = self.buckets or ((resolution, resolution),)
        if len(buckets) == self.crops == 1:
            square = self._views_of(buckets[0], moves=False)
            return lambda _: square
        known = {
            (place, moves): self._views_of(target, moves)
            for place, target in enumerate(buckets)
            for moves in (False, True)
        }
        sizes = sizes_of(self.curate_dir, shard)
        array = np.array(list(sizes.values()), np.int64).reshape(-1, 2).T
        chosen = nearest(array, buckets)
        moves = movable(array, np.array(buckets)[chosen].T)
        each = zip(sizes, chosen.tolist(), moves.tolist(), strict=True)
        return {key: known[place, can_move] for key, place, can_move in each}.__getitem__

    def _views_of(self, target: Sides, moves: bool) -> tuple[View, ...]:
        return tuple(
            View(target, number if moves else 0, mirrored, self.posterior, self.half)
            for number in range(self.crops)
            for mirrored in ((False, True) if self.flip else (False,))
        )
