"""A U-Net with a ControlNet (Zhang et al. 2023), as one module: what is trained, stored and called stays a U-Net.

The ControlNet is the U-Net's part ``controlnet``, and adds its residuals wherever the U-Net is called with ``control``. So
adapters of names, averages, checkpoints, processes and mixed precision treat it as they treat any weights of a U-Net.
Without ``control`` the U-Net computes what it computes without a ControlNet.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from diffusers import ControlNetModel, UNet2DConditionModel
from torch import Tensor, nn

from curate.run.companions import CONTROL
from curate.run.schema import UserError
from finetune.conditioning import Conditioning

PART = "controlnet"
_CHANNELS = (
    16,
    32,
    96,
    256,
)  # of the layers that read a condition, as published; a side is halved between two


class ControlledUnet(UNet2DConditionModel):
    """A U-Net whose part ``controlnet`` adds to it where there is a condition; made by :func:`attach`."""

    controlnet: ControlNetModel
    _drawn_from: Tensor | None = None

    def forward(  # type: ignore[override]
        self,
        sample: Tensor,
        timestep: Tensor | float,
        encoder_hidden_states: Tensor,
        *args: Any,
        control: Tensor | None = None,
        **options: Any,
    ) -> Any:
        """As a U-Net's.

        Args:
            sample: [B, C, h, w]. timestep, encoder_hidden_states, args, options: a U-Net's.
            control: [B, 1 or 3, H, W] uint8, at pixel resolution; by default that of :func:`drawing_from`, if any.
        """
        control = self._drawn_from if control is None else control
        if control is not None:
            # Guidance predicts with and without the caption in one batch: the same pictures, one after another.
            times = len(sample) // len(control)
            condition = control.to(sample.device).float() / 255
            down, middle = self.controlnet(
                sample,
                timestep,
                encoder_hidden_states,
                controlnet_cond=condition.repeat(times, 3 // condition.shape[1], 1, 1),
                added_cond_kwargs=options.get("added_cond_kwargs"),
                return_dict=False,
            )
            options |= {
                "down_block_additional_residuals": down,
                "mid_block_additional_residual": middle,
            }
        return super().forward(sample, timestep, encoder_hidden_states, *args, **options)


def attach(unet: UNet2DConditionModel, controlnet: nn.Module) -> None:
    """Make ``controlnet`` a part of ``unet``, in place."""
    unet.__class__ = ControlledUnet  # as torch.nn.utils.parametrize does it
    unet.add_module(PART, controlnet)


def copy_of(unet: UNet2DConditionModel, pixels_per_latent: int) -> ControlNetModel:
    """A ControlNet with the U-Net's encoder, which adds nothing yet: diffusers' ``from_unet``.

    Its initial weights beside the copy are drawn from torch's global random state.

    Raises:
        UserError: there is none for such a U-Net.
    """
    levels = (
        pixels_per_latent.bit_length() - 1
    )  # a side of the condition has to become one of the latent
    channels = (*_CHANNELS[:levels], _CHANNELS[-1])
    try:
        made = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=channels)
    except (ValueError, RuntimeError, NotImplementedError, KeyError) as error:
        raise UserError(
            f"method=controlnet does not fit the model: its U-Net has parts that a ControlNet has not ({error}); "
            "type method=lora or another base"
        ) from error
    heads = unet.config["addition_embed_type_num_heads"]
    if made.config["addition_embed_type_num_heads"] == heads:
        return made
    # Which from_unet leaves at its default, so that the copy would read captions otherwise than the U-Net.
    own = ControlNetModel.from_config({**made.config, "addition_embed_type_num_heads": heads})
    assert isinstance(own, ControlNetModel)
    own.load_state_dict(made.state_dict())
    return own


def arguments(network: Any, conditioning: Conditioning) -> dict[str, Tensor]:
    """What a network is given beside its captions: the condition, if it takes and the samples have one."""
    condition = conditioning.tensors.get(CONTROL)
    if condition is None or not isinstance(_inner(network), ControlledUnet):
        return {}
    return {CONTROL: condition}


def _inner(network: Any) -> Any:
    """Without what distributes or compiles it."""
    for name in ("module", "_orig_mod"):
        found = getattr(network, name, None)
        if isinstance(found, nn.Module):
            return _inner(found)
    return network


@contextmanager
def drawing_from(network: nn.Module, control: Tensor | None) -> Iterator[None]:
    """Let a U-Net draw from a condition [B, 1 or 3, H, W] uint8 inside a ``with`` block; None, or another U-Net: none.

    Each prediction may be of any multiple of these B pictures.
    """
    inner = _inner(network)
    if control is None or not isinstance(inner, ControlledUnet):
        yield
        return
    inner._drawn_from = control
    try:
        yield
    finally:
        inner._drawn_from = None
