"""Rows of named tensors that lie in several files, in any order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """N rows, each of one of several files; nothing is copied until it is taken.

    Attributes:
        files: for each file its tensors by name; all have the same names and shapes, but for the rows.
        file: (N,) the number of each row's file.
        row: (N,) each row's place there.
    """

    files: list[dict[str, Tensor]]
    file: np.ndarray
    row: np.ndarray

    def __len__(self) -> int:
        return len(self.row)

    @property
    def names(self) -> list[str]:
        """Of the tensors; none where there are no files."""
        return list(self.files[0]) if self.files else []

    def shape(self, name: str) -> torch.Size:
        """Of one row of the tensor ``name``."""
        return self.files[0][name].shape[1:]

    def take(
        self, rows: Sequence[int] | np.ndarray, names: Sequence[str] | None = None
    ) -> dict[str, Tensor]:
        """Copies of some rows, by name; of all tensors, or of those with some ``names``."""
        rows = np.asarray(rows, np.int64)
        places = list(zip(self.file[rows].tolist(), self.row[rows].tolist(), strict=True))
        return {
            name: torch.stack([self.files[file][name][row] for file, row in places])
            for name in (self.names if names is None else names)
        }
