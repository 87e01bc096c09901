"""What the network is conditioned on: named tensors with one row for each sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Conditioning:
    """Named tensors whose first axis is the samples; which names there are is the model's business.

    Attributes:
        tensors: by name, such as ``hidden``, the text encoder's hidden states [B, L, D], or ``input_ids`` [B, L],
            what it makes them of.
        of_picture: the names of those that depend on the picture alone, such as its size; the others depend on
            the caption alone.

    Raises:
        ValueError: there is no tensor, or they are of different numbers of samples.
    """

    tensors: dict[str, Tensor]
    of_picture: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if len({len(tensor) for tensor in self.tensors.values()}) != 1:
            shapes = {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}
            raise ValueError(f"conditioning needs tensors of one number of samples, got {shapes}")

    def __len__(self) -> int:
        """The number of samples."""
        return len(next(iter(self.tensors.values())))

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def to(self, device: torch.device | str) -> Conditioning:
        """The same on ``device``."""
        return self._each(lambda tensor: tensor.to(device))

    def float(self) -> Conditioning:
        """The same in fp32; token ids stay whole numbers."""
        return self._each(lambda tensor: tensor.float() if tensor.is_floating_point() else tensor)

    def half(self) -> Conditioning:
        """The same in fp16; token ids stay whole numbers."""
        return self._each(lambda tensor: tensor.half() if tensor.is_floating_point() else tensor)

    def take(self, rows: slice | Sequence[int] | Tensor) -> Conditioning:
        """Some of the samples, by a slice or by their indices."""
        return self._each(lambda tensor: tensor[rows])

    def split(self, size: int) -> Iterator[Conditioning]:
        """Pieces of ``size`` samples, the last one of what is left."""
        for start in range(0, len(self), size):
            yield self.take(slice(start, start + size))

    def drop(self, mask: Tensor, empty: Conditioning) -> Conditioning:
        """Give the empty caption to the samples where ``mask`` [B] is true, as caption dropout does.

        Args:
            mask: [B] bool.
            empty: of the empty caption alone. What it lacks depends on the picture, not on the caption,
                and is never dropped.

        Raises:
            ValueError: ``empty`` has an entry that is missing here.
        """
        if missing := empty.tensors.keys() - self.tensors.keys():
            raise ValueError(f"the samples have no {', '.join(sorted(missing))} to drop")

        def dropped(tensor: Tensor, instead: Tensor) -> Tensor:
            rows = mask.reshape(-1, *[1] * (tensor.ndim - 1))
            return torch.where(rows, instead.to(tensor), tensor)

        tensors = {
            name: dropped(tensor, empty[name]) if name in empty.tensors else tensor
            for name, tensor in self.tensors.items()
        }
        return Conditioning(tensors, self.of_picture)

    def with_captions_of(self, other: Conditioning) -> Conditioning:
        """These pictures with the captions of ``other``'s samples, which are as many."""
        kept = {name: self[name] for name in self.of_picture}
        return Conditioning(other.tensors | kept, self.of_picture)

    @classmethod
    def cat(cls, parts: Sequence[Conditioning]) -> Conditioning:
        """The samples of all ``parts``, one after another.

        Raises:
            ValueError: the parts have different names.
        """
        names = parts[0].tensors.keys()
        if odd := {name for part in parts for name in part.tensors.keys() ^ names}:
            raise ValueError(f"only some of the samples have {', '.join(sorted(odd))}")
        tensors = {name: torch.cat([part[name] for part in parts]) for name in names}
        return cls(tensors, parts[0].of_picture)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Conditioning:
        tensors = {name: change(tensor) for name, tensor in self.tensors.items()}
        return Conditioning(tensors, self.of_picture)
