"""All samples of a split as the network is given them, by index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from finetune.cache.pictures import DEVIATION, LATENT, Pictures
from finetune.cache.rows import Rows
from finetune.conditioning import Conditioning
from finetune.latents import Latents


class Taken(Protocol):
    """An entry of all samples."""

    def take(self, indices: np.ndarray, views: np.ndarray) -> Tensor:
        """[B, ...] of some samples, one view of each."""
        ...


class EncodedSplit:
    """N samples; their tensors are mapped from the cache's files, not read into memory.

    Attributes:
        keys: of the samples.
        captions: the first one of each.
        empty: the conditioning of the empty caption alone, fp32.
        entries: further ones that depend on the picture, by name, see ``finetune.cache.companions``.
    """

    def __init__(
        self,
        keys: Sequence[str],
        captions: Sequence[str],
        latents: Pictures | Rows,
        conditioning: Rows,
        offsets: np.ndarray,
        empty: Conditioning,
        written: np.ndarray | None = None,
    ) -> None:
        """Put the columns of a split together.

        Args:
            keys: N.
            captions: N, the first of each sample.
            latents: of N pictures their views, or of one view of one shape N rows: ``latent`` [C, h, w], its
                ``deviation``, if that is kept, and what else depends on the picture.
            conditioning: one row for each caption of each sample, fp16, or token ids. Hidden states have
                magnitudes up to tens, which fp16 holds to three digits, in half the space.
            offsets: [N + 1]; the captions of sample i are rows ``offsets[i]`` up to ``offsets[i + 1]``.
            empty: of the empty caption, fp32.
            written: [N], how many of a sample's rows, the first ones, are its captions as they are written, where
                variants of them follow, which are trained on in their place; None where none do.
        """
        self.keys, self.captions, self.empty = list(keys), list(captions), empty
        self._latents = Pictures.of(latents) if isinstance(latents, Rows) else latents
        self._conditioning, self._offsets = conditioning, offsets
        self._of_picture = [name for name in self._latents.names if name not in (LATENT, DEVIATION)]
        self._written = np.zeros(len(self.keys), np.int64) if written is None else written
        self.entries: dict[str, Taken] = {}

    def __len__(self) -> int:
        return len(self.keys)

    def shape_of(self, index: int) -> torch.Size:
        """[C, h, w] of a sample's latents."""
        return self._latents.shape_of(index)

    def shapes(self) -> list[tuple[int, ...]]:
        """The same for all samples, N."""
        return self._latents.shapes()

    @property
    def views(self) -> int:
        """Of each picture; 0 is the plain one, cut out at the centre and not mirrored."""
        return self._latents.views

    def same_view(self, one: int, other: int) -> np.ndarray:
        """Whether two views of a picture are the same, bool [N]."""
        return self._latents.same(one, other)

    def latents_of(self, indices: Tensor, views: Tensor | None = None) -> Latents:
        """[B, C, h, w] fp32; of pictures of several shapes no tensor, see ``finetune.latents``.

        Args:
            indices: [B]. views: [B], the plain ones by default.
        """
        return self._latents.latents(indices.numpy(), _numbers(indices, views))

    @property
    def has_deviations(self) -> bool:
        """Whether the VAE's standard deviations are there."""
        return DEVIATION in self._latents.names

    def deviations_of(self, indices: Tensor, views: Tensor | None = None) -> Latents:
        """Standard deviations of the VAE's posterior, like :meth:`latents_of`, which gives its means."""
        return self._latents.latents(indices.numpy(), _numbers(indices, views), DEVIATION)

    def conditioning_of(
        self,
        indices: Tensor,
        which: Tensor | None = None,
        dropped: Tensor | None = None,
        views: Tensor | None = None,
    ) -> Conditioning:
        """That of the pictures and of one caption for each of ``indices``, fp32.

        Args:
            indices: [B].
            which: [B] in [0, 1), the place in each sample's list of captions: of k captions, number
                floor(k ``which``), or of their variants, where there are any. By default the first as it is written.
            dropped: [B] bool, true where the empty caption takes the caption's place.
            views: [B], of the pictures; the plain ones by default.
        """
        rows, ends = self._offsets[indices.numpy()], self._offsets[indices.numpy() + 1]
        if which is not None:
            rows = rows + self._written[indices.numpy()]
            rows = rows + (which.double().numpy() * (ends - rows)).astype(np.int64)
        numbers = _numbers(indices, views)
        pictures = self._latents.entries(indices.numpy(), numbers, self._of_picture)
        for name, each in self.entries.items():
            pictures[name] = each.take(indices.numpy(), numbers)
        tensors = self._conditioning.take(rows) | pictures
        conditioning = Conditioning(tensors, frozenset(pictures)).float()
        return conditioning if dropped is None else conditioning.drop(dropped, self.empty)


def _numbers(indices: Tensor, views: Tensor | None) -> np.ndarray:
    """Those views, or the plain ones."""
    return np.zeros(len(indices), np.int64) if views is None else views.numpy()
