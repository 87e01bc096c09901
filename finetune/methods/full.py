"""Full fine-tuning: every weight of the U-Net is trained, and the export is a whole pipeline."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from finetune.methods.interface import Method, register_method

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel
    from torch import nn

    from finetune.models.config import ModelConfig
    from finetune.models.interface import LatentDiffusion


@register_method
@dataclass
class Full(Method):
    """Every weight of the U-Net."""

    name: str = "full"

    def attach(self, unet: UNet2DConditionModel) -> None:
        """Unfreeze everything; there is nothing to initialise."""
        unet.requires_grad_(True)

    def save(self, model: LatentDiffusion, folder: Path) -> None:
        """Write a pipeline folder, which ``from_pretrained`` loads."""
        model.pipeline().save_pretrained(folder, safe_serialization=True)

    def load(self, config: ModelConfig, folder: Path) -> nn.Module:
        """The U-Net of the pipeline in ``folder``."""
        from finetune.models import load_pipeline

        return load_pipeline(replace(config, path=str(folder), revision=None, variant=None)).unet
