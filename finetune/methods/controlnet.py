"""ControlNet: a copy of the U-Net's encoder that reads a picture to follow; the U-Net itself stays as it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from curate.run.companions import CONTROL
from curate.run.files import read_json
from curate.run.schema import UserError, check
from finetune.condition_kinds import CANNY, CONDITIONS
from finetune.methods.interface import Method, fitting, register_method

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline, UNet2DConditionModel
    from torch import Tensor, nn

    from finetune.models.config import ModelConfig
    from finetune.models.interface import LatentDiffusion

_WEIGHTS = "diffusion_pytorch_model.safetensors"
_OTHERWISE = "A ControlNet starts with one that was trained for a U-Net of the same architecture"


@register_method
@dataclass
class Controlnet(Method):
    """A ControlNet beside the frozen U-Net (Zhang et al. 2023), exported as a folder for ``ControlNetModel``.

    Attributes:
        condition: what it follows, see ``finetune.conditions``: ``canny``, edges of the pictures; ``file``, the pictures
            ``key.control.png`` in the shards.
    """

    kept_states: ClassVar[int | None] = 2  # as of method=full: a third of its weights
    name: str = "controlnet"
    condition: str = CANNY

    def __post_init__(self) -> None:
        known = self.condition in CONDITIONS
        check(known, "method.condition", self.condition, ", ".join(CONDITIONS))
        if self.text_encoder:
            raise UserError(
                f"method={self.name} trains no text encoder; remove method.text_encoder=true"
            )

    def attach(self, unet: UNet2DConditionModel, pixels_per_latent: int) -> None:
        """Give the U-Net a ControlNet whose last layers are zero, so that the first forward pass is the base model's.

        Its condition is at pixel resolution.

        Raises:
            UserError: there is none for such a U-Net.
        """
        from finetune.models import controlled

        made: Any = controlled.copy_of(unet, pixels_per_latent)
        controlled.attach(unet, made.to(unet.device).requires_grad_(True))

    def follows(self) -> str | None:
        """The condition."""
        return self.condition

    def example(self, model: LatentDiffusion, latents: Tensor) -> dict[str, Tensor]:
        """A condition of noise."""
        import torch

        sides = [side * model.pixels_per_latent for side in latents.shape[-2:]]
        generator = torch.Generator().manual_seed(0)
        noise = torch.randint(0, 256, (len(latents), 3, *sides), generator=generator)
        return {CONTROL: noise.byte().to(latents.device)}

    def rescale(self, unet: nn.Module, factor: float) -> None:
        """There is no scale to set.

        Raises:
            UserError: says so.
        """
        raise UserError(
            "lora_scale is for LoRA, and this run was trained with method=controlnet; remove lora_scale"
        )

    def fewer_weights(self) -> str:
        """Nothing: a ControlNet has one size."""
        return ""

    def save(self, model: LatentDiffusion, folder: Path) -> None:
        """Write a folder that ``ControlNetModel.from_pretrained`` loads."""
        unet: Any = model.unet
        unet.controlnet.save_pretrained(folder, safe_serialization=True)

    def load(self, config: ModelConfig, folder: Path) -> DiffusionPipeline:
        """The base model's pipeline, its U-Net with the ControlNet in ``folder``."""
        from diffusers import ControlNetModel

        from finetune.models import controlled, load_pipeline

        pipeline: Any = load_pipeline(config)
        made = ControlNetModel.from_pretrained(folder, use_safetensors=True)
        controlled.attach(pipeline.unet, made)
        return pipeline

    def python(self, base: str, folder: str) -> list[str]:
        """With the pipeline that takes a condition."""
        return [
            "from diffusers import ControlNetModel, StableDiffusionControlNetPipeline  # of SDXL: "
            "StableDiffusionXLControlNetPipeline",
            "",
            f"controlnet = ControlNetModel.from_pretrained({folder!r})",
            "pipe = StableDiffusionControlNetPipeline.from_pretrained("
            f"{base!r}, controlnet=controlnet)  # pipe(prompt, image=condition)",
        ]

    def files(self, folder: Path) -> list[Path]:
        """The ControlNet's weights."""
        path = folder / _WEIGHTS
        settings = read_json(folder / "config.json") if path.is_file() else None
        is_ours = settings is not None and settings.get("_class_name") == "ControlNetModel"
        return [path] if is_ours else []

    def refuse_to_start(self, folder: Path, option: str) -> None:
        """Whether it fits the base, :meth:`starting_weights` sees."""

    def starting_weights(
        self, model: LatentDiffusion, folder: Path, option: str
    ) -> dict[str, Tensor]:
        """The weights of the ControlNet in ``folder``.

        Raises:
            UserError: they are not those of a ControlNet for the base's U-Net.
        """
        from safetensors.torch import load_file

        from finetune.models.controlled import PART

        found = {f"{PART}.{name}": w for name, w in load_file(self.files(folder)[0]).items()}
        return fitting(found, self.trained(model), option, _OTHERWISE)
