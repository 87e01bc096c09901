"""LoRA: low-rank updates beside frozen weights, exported as a file of a few MB with its own alpha."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from curate.run.schema import UserError, check
from finetune.methods.interface import Method, register_method

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel
    from torch import Tensor, nn

    from finetune.models.config import ModelConfig
    from finetune.models.interface import LatentDiffusion


@register_method
@dataclass
class Lora(Method):
    """Low-rank updates beside frozen weights (Hu et al. 2021): W + alpha / rank * B A.

    Attributes:
        rank: of the update.
        alpha: its scale; ``alpha == rank`` is a scale of one.
        targets: suffixes of the names of the U-Net's modules that get an update.
    """

    scalable: ClassVar[bool] = True
    name: str = "lora"
    rank: int = 16
    alpha: float = 16.0
    targets: list[str] = field(default_factory=lambda: ["to_q", "to_k", "to_v", "to_out.0"])

    def __post_init__(self) -> None:
        check(self.rank > 0, "method.rank", self.rank, "> 0")
        check(self.alpha > 0, "method.alpha", self.alpha, "> 0")
        check(len(self.targets) > 0, "method.targets", self.targets, "at least one module name")

    def attach(self, unet: UNet2DConditionModel) -> None:
        """B starts at zero and A at N(0, 1/rank), so the first forward pass is the base model's.

        Raises:
            UserError: the U-Net has no modules of the names ``targets``.
        """
        from peft import LoraConfig

        adapter = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,  # type: ignore[arg-type]  # peft divides; a float is right
            init_lora_weights="gaussian",
            target_modules=list(self.targets),
        )
        try:
            unet.add_adapter(adapter)
        except ValueError as error:  # no module of the U-Net has such a name
            raise UserError(
                f"method.targets={list(self.targets)} does not fit the model: {error}"
            ) from error

    def rescale(self, unet: nn.Module, factor: float) -> None:
        """W + factor * alpha / rank * B A."""
        from peft.tuners.lora import LoraLayer

        for layer in unet.modules():
            if isinstance(layer, LoraLayer):
                for name in layer.active_adapters:
                    layer.set_scale(name, factor)

    def fewer_weights(self) -> str:
        """Half the rank."""
        return f"method.rank={max(self.rank // 2, 1)}"

    def save(self, model: LatentDiffusion, folder: Path) -> None:
        """Write ``pytorch_lora_weights.safetensors``, which ``load_lora_weights`` loads.

        The adapter's own configuration is in its header: rank alone does not tell alpha.
        """
        from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
        from diffusers.training_utils import _collate_lora_metadata
        from peft import get_peft_model_state_dict

        metadata = _collate_lora_metadata({"unet": model.unet})["unet_lora_adapter_metadata"]
        adapter = {f"unet.{name}": _plain(value) for name, value in metadata.items()}
        header = {LORA_ADAPTER_METADATA_KEY: json.dumps(adapter, indent=2, sort_keys=True)}

        def write(weights: dict[str, Tensor], path: str) -> None:
            from safetensors.torch import save_file

            # One header key alone: two would be written in any order, and the bytes would not repeat.
            tensors = {name: weight.detach().cpu().contiguous() for name, weight in weights.items()}
            save_file(tensors, path, metadata=header)

        # In peft's own names: diffusers' older ones exist for attention alone, and of a file that mixes
        # both its loader takes only the others.
        model.pipeline().save_lora_weights(
            folder, unet_lora_layers=get_peft_model_state_dict(model.unet), save_function=write
        )

    def load(self, config: ModelConfig, folder: Path) -> nn.Module:
        """The base model's U-Net with the adapter in ``folder``."""
        from finetune.models import load_pipeline

        pipeline = load_pipeline(config)
        logger = logging.getLogger("diffusers.loaders.lora_base")
        logger.disabled = True  # it warns that there are no text encoder weights
        try:
            pipeline.load_lora_weights(str(folder))
        finally:
            logger.disabled = False
        return pipeline.unet


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, set) else value
