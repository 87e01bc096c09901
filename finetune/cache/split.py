"""All samples of a split as the network is given them, by index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from finetune.cache.rows import Rows
from finetune.conditioning import Conditioning

LATENT = "latent"


class Taken(Protocol):
    """An entry of all samples."""

    def take(self, indices: np.ndarray) -> Tensor:
        """[B, ...] of some samples."""
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
        latents: Rows,
        conditioning: Rows,
        offsets: np.ndarray,
        empty: Conditioning,
    ) -> None:
        """Put the columns of a split together.

        Args:
            keys: N.
            captions: N, the first of each sample.
            latents: N rows ``latent`` [C, h, w] fp32, and what else depends on the picture, fp32.
            conditioning: one row for each caption of each sample, fp16. Hidden states have magnitudes
                up to tens, which fp16 holds to three digits, in half the space.
            offsets: [N + 1]; the captions of sample i are rows ``offsets[i]`` up to ``offsets[i + 1]``.
            empty: of the empty caption, fp32.
        """
        self.keys, self.captions, self.empty = list(keys), list(captions), empty
        self._latents, self._conditioning, self._offsets = latents, conditioning, offsets
        self._of_picture = [name for name in latents.names if name != LATENT]
        self.entries: dict[str, Taken] = {}

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def latent_shape(self) -> torch.Size:
        """[C, h, w]."""
        return self._latents.shape(LATENT)

    def latents_of(self, indices: Tensor) -> Tensor:
        """[B, C, h, w] fp32."""
        return self._latents.take(indices.numpy(), [LATENT])[LATENT]

    def conditioning_of(
        self, indices: Tensor, which: Tensor | None = None, dropped: Tensor | None = None
    ) -> Conditioning:
        """That of the pictures and of one caption for each of ``indices``, fp32.

        Args:
            indices: [B].
            which: [B] in [0, 1), the place in each sample's list of captions: of k captions, number
                floor(k ``which``). The first by default.
            dropped: [B] bool, true where the empty caption takes the caption's place.
        """
        rows, ends = self._offsets[indices.numpy()], self._offsets[indices.numpy() + 1]
        if which is not None:
            rows = rows + (which.double().numpy() * (ends - rows)).astype(np.int64)
        pictures = self._latents.take(indices.numpy(), self._of_picture)
        pictures |= {name: each.take(indices.numpy()) for name, each in self.entries.items()}
        tensors = self._conditioning.take(rows) | pictures
        conditioning = Conditioning(tensors, frozenset(pictures)).float()
        return conditioning if dropped is None else conditioning.drop(dropped, self.empty)
