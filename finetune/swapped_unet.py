"""The base model's one U-Net, and its text encoders, which hold the weights of one checkpoint after another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from finetune.ema import copy_into
from finetune.methods import prepare_model
from finetune.methods.interface import weights_of
from finetune.models import load_pipeline

if TYPE_CHECKING:
    from finetune.checkpoint import Checkpoint
    from finetune.methods import Method
    from finetune.models.config import ModelConfig
    from finetune.models.interface import LatentDiffusion


class SwappedUnet:
    """A U-Net of which no second one is kept in memory, and the text encoders before it, where they are trained.

    What a method trains is overwritten in place. To become the base model again, weights that the base has
    itself are read from its files once more, and those that the method added get the values that training
    started with, at which they change nothing, see ``finetune.methods.Method.attach``.
    """

    def __init__(
        self, model: LatentDiffusion, config: ModelConfig, method: Method, seed: int
    ) -> None:
        """Prepare ``model`` in place.

        Args:
            model: the base, as it was loaded.
            config: where its files are.
            method: that the run was trained by. seed: of that training.
        """
        networks = method.networks(model)
        own = set(weights_of(networks))
        prepare_model(model, method, seed)
        self._unet, self._config, self._parts = model.unet, config, list(networks)
        self._weights = method.trained(model)
        self._method = method
        self._added = {
            name: weight.detach().to("cpu", copy=True)
            for name, weight in self._weights.items()
            if name not in own
        }
        for network in networks.values():
            network.requires_grad_(False).eval()
        self._holds: object = None  # the base

    def at(self, stored: Checkpoint | None, ema: bool) -> nn.Module:
        """The U-Net with the weights of a checkpoint, at its scale, or with those of the base for None; text encoders too.

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
        pipeline = load_pipeline(self._config)
        read = weights_of({part: getattr(pipeline, part) for part in self._parts})
        return {name: read[name] for name in self._weights if name not in self._added} | self._added
