"""What a loss holds on to beside the data: the base's weights, and what the base predicts."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from finetune.data import Batch
from finetune.models.interface import LatentDiffusion

if TYPE_CHECKING:
    from finetune.methods import Method

AsBase = Callable[[], AbstractContextManager[nn.Module]]
"""Makes, for a while, a U-Net that computes what the base does."""


class Regulariser:
    """The base, while its copy is trained.

    Attributes:
        weight_l2: times the squared norm of the update; 0 leaves it out.
        teacher: times the squared difference from the base's prediction, of replayed samples; 0 leaves it out.
    """

    def __init__(
        self, model: LatentDiffusion, method: Method, weight_l2: float, teacher: float
    ) -> None:
        """Prepare.

        Args:
            model: the base, its U-Net prepared by ``method`` and not trained yet, on its device.
        """
        self._model, self._method = model, method
        self.weight_l2, self.teacher = weight_l2, teacher
        trained = method.trainable(model.unet)
        self._base: Mapping[str, Tensor] = {}
        self._network: nn.Module | None = None
        if not method.scalable and weight_l2:  # what is trained is the base's own
            self._base = {name: weight.detach().clone() for name, weight in trained.items()}
        if not method.scalable and teacher:
            self._network = copy.deepcopy(model.unet).requires_grad_(False).eval()

    @property
    def copied_bytes(self) -> int:
        """What copies of the base's weights take."""
        kept: list[Any] = [*self._base.values()]
        if self._network is not None:
            kept += self._network.parameters()
        return sum(weight.numel() * weight.element_size() for weight in kept)

    # The base as teacher

    def target(self, part: Batch) -> Tensor | None:
        """What the network should predict: the base's prediction for replayed samples, else as the schedule says.

        Args:
            part: on the device.

        Returns:
            [B, C, h, w] fp32; None where no sample has a teacher.
        """
        if not self.teacher or part.replayed is None or not part.replayed.any():
            return None
        schedule, rows = self._model.schedule, part.replayed
        target = schedule.target(part.latents, part.noise, part.timesteps).clone()
        noisy = schedule.add_noise(
            part.latents, part.noise if part.added is None else part.added, part.timesteps
        )
        conditioning = part.conditioning.take(rows.nonzero().flatten())
        with torch.no_grad(), self._as_base() as network:
            said = self._model.predict(network, noisy[rows], part.timesteps[rows], conditioning)
        target[rows] = said.float()
        return target

    def weights(self, part: Batch) -> Tensor | None:
        """What the samples' losses are multiplied by [B], fp32; None where that is 1 for all."""
        if not self.teacher or part.replayed is None:
            return None
        ones = torch.ones(len(part.keys), device=part.latents.device)
        return torch.where(part.replayed, ones * self.teacher, ones)

    @contextmanager
    def _as_base(self) -> Iterator[nn.Module]:
        if self._network is not None:
            yield self._network
            return
        with self._method.switched_off(self._model.unet):
            yield self._model.unet

    # The base's weights

    def add_gradient(self, weights: Mapping[str, nn.Parameter], factor: float = 1.0) -> None:
        """Add the gradient of ``weight_l2`` times the squared norm of the update to that of ``weights``, in place.

        Args:
            weights: those that are trained; they have a gradient.
            factor: by which gradients are multiplied already, as fp16 does.
        """
        if not self.weight_l2:
            return
        strength = self.weight_l2 * factor
        if self._base:
            for name, weight in weights.items():
                assert weight.grad is not None
                weight.grad.add_(weight.detach() - self._base[name], alpha=2 * strength)
            return
        for norm, parts in self._method.squared_norms(self._model.unet):
            gradients = torch.autograd.grad(norm * strength, parts)
            for weight, gradient in zip(parts, gradients, strict=True):
                assert weight.grad is not None
                weight.grad.add_(gradient)
