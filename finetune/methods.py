"""What is trained: every weight of the U-Net, or low-rank updates beside them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig as PeftLoraConfig
from torch import nn

from curate.run.cli import UserError
from finetune.config import FullConfig, LoraConfig, MethodConfig


def attach(method: MethodConfig, unet: UNet2DConditionModel, seed: int) -> None:
    """Prepare ``unet`` in place, so that exactly the weights that ``method`` trains require gradients.

    Args:
        method: one of the configured methods.
        unet: fp32.
        seed: of whatever the method initialises; the global random state is left as it was.
    """
    unet.requires_grad_(False)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        _ATTACH[type(method)](method, unet)


def trainable(unet: nn.Module) -> dict[str, nn.Parameter]:
    """The weights that require gradients, by name, in the module's order."""
    return {name: weight for name, weight in unet.named_parameters() if weight.requires_grad}


def _attach_full(_: FullConfig, unet: UNet2DConditionModel) -> None:
    unet.requires_grad_(True)


def _attach_lora(method: LoraConfig, unet: UNet2DConditionModel) -> None:
    """B starts at zero and A at N(0, 1/rank), so the first forward pass is the base model's."""
    lora = PeftLoraConfig(
        r=method.rank,
        lora_alpha=method.alpha,  # type: ignore[arg-type]  # peft divides; a float is right
        init_lora_weights="gaussian",
        target_modules=list(method.targets),
    )
    try:
        unet.add_adapter(lora)
    except ValueError as error:  # no module of the U-Net is called so
        raise UserError(
            f"method.targets={list(method.targets)} does not fit the model: {error}"
        ) from error


_ATTACH: dict[type[MethodConfig], Callable[..., None]] = {
    FullConfig: _attach_full,
    LoraConfig: _attach_lora,
}
