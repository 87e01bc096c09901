"""LoRA: low-rank updates beside frozen weights, exported as a file of a few MB with its own alpha."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from curate.run.schema import UserError
from finetune.methods.adapters.adapter import Adapter, Stored, plain_settings
from finetune.methods.interface import UNET, register_method, text_name

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from torch import Tensor, nn

    from finetune.models.config import ModelConfig
    from finetune.models.interface import LatentDiffusion

_FILE = "pytorch_lora_weights.safetensors"  # as diffusers names it
_HEADER_KEY = "lora_adapter_metadata"  # diffusers.loaders.lora_base.LORA_ADAPTER_METADATA_KEY, which imports torch
# Begins a weight's name in that file, and a setting of the adapter in its header.
_PARTS = (UNET, "text_encoder", "text_encoder_2")
_MAGNITUDE = "lora_magnitude_vector"


@register_method
@dataclass
class Lora(Adapter):
    """Low-rank updates beside frozen weights (Hu et al. 2021): W + alpha / rank * B A."""

    readers: ClassVar[str] = "diffusers and by kohya's rules"
    noun: ClassVar[str] = "LoRA"
    linear: ClassVar[tuple[str, ...]] = ("lora_B",)
    settings: ClassVar[dict[str, str]] = {"rank": "r", "alpha": "lora_alpha"}
    # B starts at zero and A at N(0, 1/rank).
    fixed: ClassVar[dict[str, Any]] = {"init_lora_weights": "gaussian"}
    name: str = "lora"

    @staticmethod
    def kind() -> type:
        """peft's LoRA."""
        from peft import LoraConfig

        return LoraConfig

    def header(self) -> dict[str, str]:
        """kohya's own module has rank and alpha of convolutions apart."""
        convolutions = {"conv_dim": str(self.rank), "conv_alpha": f"{self.alpha:g}"}
        trained = any(target.startswith("conv") for target in self.targets)
        arguments = json.dumps(convolutions if trained else {})
        return {"ss_network_module": "networks.lora", "ss_network_args": arguments}

    def save(self, model: LatentDiffusion, folder: Path) -> None:
        """Write ``pytorch_lora_weights.safetensors``, which ``load_lora_weights`` loads, text encoders too.

        The adapters' own configurations are in its header: rank alone does not tell alpha.
        """
        from diffusers.loaders.lora_base import LORA_ADAPTER_METADATA_KEY
        from diffusers.training_utils import _collate_lora_metadata

        networks = self.networks(model)
        metadata = _collate_lora_metadata(networks)
        adapter = {
            f"{part}.{name}": value
            for part in networks
            for name, value in plain_settings(metadata[f"{part}_lora_adapter_metadata"]).items()
        }
        header = {LORA_ADAPTER_METADATA_KEY: json.dumps(adapter, indent=2, sort_keys=True)}

        def write(weights: dict[str, Tensor], path: str) -> None:
            from safetensors.torch import save_file

            # One header key alone: two would be written in any order, and the bytes would not repeat.
            tensors = {name: weight.detach().cpu().contiguous() for name, weight in weights.items()}
            save_file(tensors, path, metadata=header)

        # In peft's own names: diffusers' older ones exist for attention alone, and of a file that mixes
        # both its loader takes only the others.
        layers = {f"{part}_lora_layers": _layers(part, each) for part, each in networks.items()}
        model.pipeline().save_lora_weights(folder, **layers, save_function=write)

    def load(self, config: ModelConfig, folder: Path) -> DiffusionPipeline:
        """The base model's pipeline with the adapters in ``folder``."""
        from finetune.models import load_pipeline

        pipeline: Any = load_pipeline(config)
        logger = logging.getLogger("diffusers.loaders.lora_base")
        logger.disabled = True  # it warns that there are no text encoder weights
        try:
            pipeline.load_lora_weights(str(folder))
        finally:
            logger.disabled = False
        return pipeline

    def python(self, base: str, folder: str) -> list[str]:
        """With ``load_lora_weights``."""
        return [*super().python(base, base), f"pipe.load_lora_weights({folder!r})"]

    def files(self, folder: Path) -> list[Path]:
        """The adapter's, where it is no other kind's."""
        path = folder / _FILE
        return [path] if path.is_file() and _is_dora(path) == self._decomposes() else []

    def _decomposes(self) -> bool:
        return bool(self.fixed.get("use_dora"))

    def stored(self, folder: Path, option: str) -> dict[str, Stored]:
        """From the file's header."""
        from safetensors import SafetensorError

        path = folder / _FILE
        try:
            settings, names = _header(path)
        except (SafetensorError, ValueError) as error:
            raise UserError(
                f"{option}: {path} cannot be read: {error}. Export it again: python -m finetune.export RUN step=best"
            ) from error
        found = {
            part: (_of(part, settings), list(_of(part, dict.fromkeys(names)))) for part in _PARTS
        }
        return {part: each for part, each in found.items() if part == UNET or each[1]}

    def tensors(self, folder: Path) -> dict[str, Tensor]:
        """From that file."""
        from safetensors.torch import load_file

        stored, found = load_file(folder / _FILE), {}
        for part in _PARTS:
            for name, weight in _of(part, stored).items():
                plain = name.replace(f"{_MAGNITUDE}.weight", _MAGNITUDE)
                found[plain if part == UNET else f"{part}.{text_name(plain)}"] = weight
        return found


def _of(part: str, named: dict[str, Any]) -> dict[str, Any]:
    """Those of some values that are of one network, without its name."""
    start = f"{part}."
    return {name[len(start) :]: value for name, value in named.items() if name.startswith(start)}


def _layers(part: str, network: nn.Module) -> dict[str, Tensor]:
    """A network's adapter by its names in the file.

    diffusers' loader gives text encoders to transformers, which of DoRA's magnitudes takes the names that the modules
    have themselves.
    """
    from peft import get_peft_model_state_dict

    found = get_peft_model_state_dict(network, save_embedding_layers=False)
    if part == UNET:
        return found
    named = {text_name(name): weight for name, weight in found.items()}
    return {
        f"{name}.weight" if name.endswith(_MAGNITUDE) else name: weight
        for name, weight in named.items()
    }


def _header(path: Path) -> tuple[dict[str, Any], list[str]]:
    """The adapter's settings in a file's header, {} where there are none, and the names of its weights."""
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        names = list(file.keys())
        content = json.loads((file.metadata() or {}).get(_HEADER_KEY, "{}"))
    return content if isinstance(content, dict) else {}, names


def _is_dora(path: Path) -> bool:
    """Whether a file holds magnitudes; no for one that cannot be read, which is refused elsewhere."""
    from safetensors import SafetensorError

    try:
        return any(_MAGNITUDE in name for name in _header(path)[1])
    except (SafetensorError, ValueError):
        return False
