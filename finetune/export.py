"""Exports that other programs load, each proven by loading it again and comparing one forward pass."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
from diffusers.training_utils import _collate_lora_metadata
from peft import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor, nn

from finetune.checkpoint import remove_folder
from finetune.config import FullConfig, LoraConfig, MethodConfig, ModelConfig
from finetune.model import LatentDiffusion, load_pipeline

TOLERANCE = 1e-4  # of the largest output; the same fp32 weights differ by rounding only


class ExportMismatch(RuntimeError):
    """What was written does not compute what is in memory."""


def export(
    method: MethodConfig, config: ModelConfig, model: LatentDiffusion, folder: Path
) -> float:
    """Write ``model``'s U-Net, as ``method`` trained it, to ``folder``, which is replaced.

    Args:
        method: decides the format: LoRA weights, or a whole pipeline.
        config: where the base model is, which LoRA weights are loaded into for the comparison.
        model: with the weights to export in place.
        folder: appears only after the comparison.

    Returns:
        The largest absolute difference between the U-Net's outputs in memory and after reloading.

    Raises:
        ExportMismatch: the difference is beyond rounding.
    """
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    write, read = _FORMATS[type(method)]
    write(model, part)
    difference = _compare(model.unet, read(config, model, part), model)
    remove_folder(folder)
    part.rename(folder)
    return difference


def _write_pipeline(model: LatentDiffusion, folder: Path) -> None:
    model.pipeline().save_pretrained(folder, safe_serialization=True)


def _read_pipeline(_: ModelConfig, model: LatentDiffusion, folder: Path) -> nn.Module:
    pipeline = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    return pipeline.unet.to(model.device)


def _write_lora(model: LatentDiffusion, folder: Path) -> None:
    """With the adapter's own configuration beside the weights: rank alone does not tell alpha."""
    metadata = _collate_lora_metadata({"unet": model.unet})["unet_lora_adapter_metadata"]
    adapter = {f"unet.{name}": _plain(value) for name, value in metadata.items()}
    header = {LORA_ADAPTER_METADATA_KEY: json.dumps(adapter, indent=2, sort_keys=True)}

    def save(weights: dict[str, Tensor], path: str) -> None:
        # One header key alone: two would be written in any order, and the bytes would not repeat.
        tensors = {name: weight.detach().cpu().contiguous() for name, weight in weights.items()}
        save_file(tensors, path, metadata=header)

    # In peft's own names: diffusers' older ones exist for attention alone, and of a file that mixes
    # both its loader takes only the others.
    layers: dict[str, nn.Module | Tensor] = {**get_peft_model_state_dict(model.unet)}
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=layers, save_function=save)


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, set) else value


def _read_lora(config: ModelConfig, model: LatentDiffusion, folder: Path) -> nn.Module:
    pipeline = load_pipeline(config)
    logger = logging.getLogger("diffusers.loaders.lora_base")
    logger.disabled = True  # it warns that there are no text encoder weights
    pipeline.load_lora_weights(str(folder))
    logger.disabled = False
    return pipeline.unet.to(model.device)


_FORMATS: dict[type[MethodConfig], tuple[Callable[..., None], Callable[..., nn.Module]]] = {
    FullConfig: (_write_pipeline, _read_pipeline),
    LoraConfig: (_write_lora, _read_lora),
}


@torch.no_grad()
def _compare(ours: nn.Module, theirs: nn.Module, model: LatentDiffusion) -> float:
    generator = torch.Generator().manual_seed(0)
    unet = model.unet.config
    size = unet["sample_size"] if isinstance(unet["sample_size"], int) else 8
    latents = torch.randn((1, unet["in_channels"], size, size), generator=generator)
    text = model.encode_captions(["a picture"])
    inputs = (latents.to(model.device), torch.tensor([500], device=model.device), text)
    outputs = [net.eval()(*inputs).sample.float() for net in (ours, theirs)]
    difference = (outputs[0] - outputs[1]).abs().max().item()
    largest = outputs[0].abs().max().item()
    if not difference <= TOLERANCE * max(1.0, largest):
        raise ExportMismatch(
            f"the export computes something else: outputs differ by {difference} of {largest}"
        )
    return difference
