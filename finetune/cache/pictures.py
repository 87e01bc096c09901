"""What the cache holds of the pictures of a split: views of several shapes, each in a folder of its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from finetune.cache.rows import Rows
from finetune.latents import Latents, together

LATENT, DEVIATION = "latent", "deviation"


class Pictures:
    """V views of each of N pictures; view 0 is the plain one, cut out at the centre.

    Args:
        parts: rows of one shape each, all with the same names.
        part: [V, N] the place in ``parts`` of each view of each picture.
        row: [V, N] its row there.
    """

    def __init__(self, parts: Sequence[Rows], part: np.ndarray, row: np.ndarray) -> None:
        self._parts, self._part, self._row = list(parts), part, row

    @classmethod
    def of(cls, rows: Rows) -> Pictures:
        """One view of each, all of one shape."""
        return cls([rows], np.zeros((1, len(rows)), np.int32), np.arange(len(rows))[None])

    @property
    def views(self) -> int:
        """V."""
        return len(self._part)

    def same(self, one: int, other: int) -> np.ndarray:
        """Whether two views of a picture are the same, bool [N]."""
        return self._part[one] == self._part[other]

    @property
    def names(self) -> list[str]:
        """Of the tensors; none where there are no pictures."""
        return next((names for part in self._parts if (names := part.names)), [])

    def shape_of(self, picture: int) -> torch.Size:
        """[C, h, w] of a picture's latents; all its views have it."""
        return self._parts[self._part[0, picture]].shape(LATENT)

    def shapes(self) -> list[tuple[int, ...]]:
        """The same for all pictures, N."""
        known = [tuple(part.shape(LATENT)) if part.names else () for part in self._parts]
        return [known[part] for part in self._part[0].tolist()]

    def latents(self, pictures: np.ndarray, views: np.ndarray, name: str = LATENT) -> Latents:
        """Copies of the tensor ``name`` of some pictures, one view of each, fp32; both [B]."""
        if len(self._parts) == 1:
            return self._parts[0].take(self._row[views, pictures], [name])[name].float()
        return together([row.float() for row in self._rows(pictures, views, name)])

    def entries(
        self, pictures: np.ndarray, views: np.ndarray, names: Sequence[str]
    ) -> dict[str, Tensor]:
        """Copies of tensors by name, whose shapes do not depend on the picture's; both [B]."""
        if len(self._parts) == 1:
            return self._parts[0].take(self._row[views, pictures], names)
        return {name: torch.stack(self._rows(pictures, views, name)) for name in names}

    def _rows(self, pictures: np.ndarray, views: np.ndarray, name: str) -> list[Tensor]:
        places = zip(
            self._part[views, pictures].tolist(), self._row[views, pictures].tolist(), strict=True
        )
        return [self._parts[part].take([row], [name])[name][0] for part, row in places]
