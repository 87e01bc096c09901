"""The base model's one U-Net, which holds the weights of one checkpoint after another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from finetune.ema import copy_into
from finetune.methods import prepare
from finetune.models import load_pipeline

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

    from finetune.checkpoint import Checkpoint
    from finetune.methods import Method
    from finetune.models.config import ModelConfig


class SwappedUnet:
    """A U-Net of which no second one is kept in memory.

    What a method trains is overwritten in place. To become the base model again, weights that the base has
    itself are read from its files once more, and those that the method added get the values that training
    started with, at which they change nothing, see ``finetune.methods.Method.attach``.
    """

    def __init__(
        self, unet: UNet2DConditionModel, model: ModelConfig, method: Method, seed: int
    ) -> None:
        """Prepare ``unet`` in place.

        Args:
            unet: of the base model, as it was loaded.
            model: where its files are.
            method: that the run was trained by. seed: of that training.
        """
        own = {name for name, _ in unet.named_parameters()}
        prepare(unet, method, seed)
        self._unet, self._model, self._method = unet, model, method
        self._weights = method.trainable(unet)
        self._added = {
            name: weight.detach().to("cpu", copy=True)
            for name, weight in self._weights.items()
            if name not in own
        }
        unet.requires_grad_(False).eval()
        self._holds: object = None  # the base

    def at(self, stored: Checkpoint | None, ema: bool) -> nn.Module:
        """The U-Net with the weights of a checkpoint, at its scale, or with those of the base for None.

        Args:
            stored: which one.
            ema: whether to take the average, where one was kept.
        """
        wanted = None if stored is None else (stored.path, ema, stored.scale)
        if wanted != self._holds:
            values = self._base() if stored is None else self._of(stored, ema)
            self._holds = "a part of two rows"  # if copying fails halfway
            copy_into(self._weights, values)
            self._holds = wanted
        return self._unet

    def _of(self, stored: Checkpoint, ema: bool) -> dict[str, Tensor]:
        values = stored.weights(ema)
        if stored.scale == 1:
            return values
        return self._method.scaled(self._unet, values, stored.scale, self._base)

    def _base(self) -> dict[str, Tensor]:
        if self._added.keys() == self._weights.keys():
            return self._added
        read = dict(load_pipeline(self._model).unet.named_parameters())
        return {name: read[name] for name in self._weights if name not in self._added} | self._added
