"""Latents of several pictures, which have one shape, or with aspect buckets several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeAlias, overload

import numpy as np
import torch
from torch import Tensor


class Mixed:
    """N latents [C, h, w] of more than one shape, on the CPU; what is taken of them has the type :func:`together` says."""

    def __init__(self, rows: Sequence[Tensor]) -> None:
        self._rows = list(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self._rows)

    @overload
    def __getitem__(self, rows: int) -> Tensor: ...
    @overload
    def __getitem__(self, rows: slice | Sequence[int]) -> Latents: ...
    def __getitem__(self, rows: int | slice | Sequence[int]) -> Tensor | Latents:
        if isinstance(rows, int):
            return self._rows[rows]
        places = range(len(self))[rows] if isinstance(rows, slice) else rows
        return together([self._rows[place] for place in places])

    def __mul__(self, factor: float) -> Mixed:
        return Mixed([row * factor for row in self._rows])


Latents: TypeAlias = Tensor | Mixed


def together(rows: Sequence[Tensor]) -> Latents:
    """The tensors in one, [N, ...], where all have one shape."""
    if len({row.shape for row in rows}) > 1:
        return Mixed(rows)
    return torch.stack(list(rows))


def of_one_shape(latents: Latents) -> Tensor:
    """The same, where only one shape can be.

    Raises:
        ValueError: there are several.
    """
    if isinstance(latents, Mixed):
        shapes = sorted({tuple(row.shape) for row in latents})
        raise ValueError(
            f"pictures of one shape are needed here, and these have the shapes {shapes}"
        )
    return latents


def tensors_of(latents: Latents) -> list[Tensor]:
    """All values: one tensor where there is one shape, else one for each picture."""
    return [latents] if isinstance(latents, Tensor) else list(latents)


def energies(latents: Latents) -> np.ndarray:
    """The mean square of each picture, float64 [N]."""
    if isinstance(latents, Tensor):
        return latents.double().square().mean(dim=(1, 2, 3)).numpy()
    return np.array([row.double().square().mean().item() for row in latents])


def by_shape(latents: Latents) -> list[int]:
    """The places 0 ... N - 1 with those of one shape next to each other, in order else."""
    if isinstance(latents, Tensor):
        return list(range(len(latents)))
    shapes = list(dict.fromkeys(row.shape for row in latents))
    return sorted(range(len(latents)), key=lambda place: shapes.index(latents[place].shape))
