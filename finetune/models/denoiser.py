"""U-Net and text encoders as one network, which takes captions: what is trained where text encoders are, too.

One module around both lets ``DistributedDataParallel`` see all gradients of an update, and mixed precision both forward
passes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from accelerate.utils import extract_model_from_parallel
from torch import Tensor, nn

from finetune.conditioning import Conditioning
from finetune.models.parts import IDS

if TYPE_CHECKING:
    from finetune.models.interface import LatentDiffusion


class Denoiser(nn.Module):
    """The U-Net of a model behind its text encoders.

    Args:
        model: whose networks these are, not copies of them.
    """

    def __init__(self, model: LatentDiffusion) -> None:
        super().__init__()
        self.unet = model.unet
        self.text_encoders = nn.ModuleDict(model.text_encoders)
        self._predict = model.predict

    def forward(self, noisy: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        """As :meth:`finetune.models.interface.LatentDiffusion.predict`, for token ids.

        Raises:
            ValueError: it is given hidden states, which a former state of the text encoders made.
        """
        if IDS not in conditioning.tensors:
            raise ValueError("text encoders that are trained take token ids, and got hidden states")
        return self._predict(self.unet, noisy, timesteps, conditioning)


def takes_captions(network: nn.Module) -> bool:
    """Whether a network, or what a wrapper of it wraps, is a :class:`Denoiser`."""
    return isinstance(extract_model_from_parallel(network), Denoiser)


def checkpoint_text_encoder(encoder: Any) -> None:
    """Let a text encoder compute its layers once more in the backward pass, in place of keeping their activations."""
    enable = getattr(
        encoder, "activation_checkpointing_enable", None
    )  # its name from transformers 5.20 or so
    (enable or encoder.gradient_checkpointing_enable)()
