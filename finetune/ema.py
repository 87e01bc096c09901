"""The exponential moving average of the trained weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class Ema:
    """Shadow copies that follow the weights: s <- d s + (1 - d) w after every update.

    The ramp d = min(decay, (1 + n) / (10 + n)) after n updates, that of TensorFlow's
    ``ExponentialMovingAverage``, reduces the weight of the base model, with which the average starts.
    """

    def __init__(self, weights: Mapping[str, Tensor], decay: float) -> None:
        self.decay = decay
        self.shadow = {name: weight.detach().clone() for name, weight in weights.items()}

    @torch.no_grad()
    def update(self, weights: Mapping[str, Tensor], step: int) -> None:
        """Take in ``weights`` after update number ``step``, counted from one."""
        decay = min(self.decay, (1 + step) / (10 + step))
        current = [weight.detach() for weight in weights.values()]
        torch._foreach_lerp_(list(self.shadow.values()), current, 1 - decay)


@contextmanager
def swapped_in(values: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Replace ``weights`` by the ``values`` of the same names inside a ``with`` block; restore them after."""
    own = {name: weight.detach().clone() for name, weight in weights.items()}
    copy_into(weights, values)
    try:
        yield
    finally:
        copy_into(weights, own)


@torch.no_grad()
def copy_into(weights: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Overwrite ``weights`` in place.

    Raises:
        ValueError: the names differ, as when a checkpoint belongs to another method or model.
    """
    if weights.keys() != values.keys():
        odd = sorted(weights.keys() ^ values.keys())
        raise ValueError(f"the weights do not fit: {len(odd)} names differ, such as {odd[0]!r}")
    for name, weight in weights.items():
        weight.copy_(values[name])
