"""Adapters that diffusers' own loader does not read for Stable Diffusion: their exports are peft's."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from curate.run.files import read_json, write_json
from curate.run.schema import UserError
from finetune.methods.adapters.adapter import Adapter, plain_settings

if TYPE_CHECKING:
    from torch import Tensor, nn

    from finetune.models.config import ModelConfig
    from finetune.models.interface import LatentDiffusion

_FILE, _SETTINGS = "adapter_model.safetensors", "adapter_config.json"  # as peft names them
_PREFIX = "base_model.model."  # of the weights' names in the file


@dataclass
class PeftAdapter(Adapter):
    """An adapter that ``PeftModel.from_pretrained(pipe.unet, folder)`` loads.

    Attributes:
        peft_type: peft's name of the kind, as its settings say it; of the class.
        algorithm: LyCORIS' name of the kind.
    """

    readers: ClassVar[str] = "peft and by kohya's rules"
    peft_type: ClassVar[str]
    algorithm: ClassVar[str]

    def header(self) -> dict[str, str]:
        """It is LyCORIS that defines these in kohya's layout."""
        arguments = {"algo": self.algorithm, **self.arguments()}
        return {"ss_network_module": "lycoris.kohya", "ss_network_args": json.dumps(arguments)}

    def arguments(self) -> dict[str, str]:
        """The settings by the names that LyCORIS has for them, beside rank and alpha."""
        return {}

    def save(self, model: LatentDiffusion, folder: Path) -> None:
        """Write ``adapter_model.safetensors`` and ``adapter_config.json``."""
        from peft import get_peft_model_state_dict
        from safetensors.torch import save_file

        folder.mkdir(parents=True)
        settings = plain_settings(model.unet.peft_config["default"].to_dict())
        write_json(folder / _SETTINGS, {name: settings[name] for name in sorted(settings)})
        weights = {
            f"{_PREFIX}{name}": weight.detach().cpu().contiguous()
            for name, weight in get_peft_model_state_dict(model.unet).items()
        }
        save_file(weights, folder / _FILE, metadata={"format": "pt"})

    def load(self, config: ModelConfig, folder: Path) -> nn.Module:
        """The base model's U-Net with the adapter in ``folder``."""
        from peft import PeftModel

        from finetune.models import load_pipeline

        unet = load_pipeline(config).unet
        PeftModel.from_pretrained(unet, str(folder))  # in place
        return unet

    def python(self, base: str, folder: str) -> list[str]:
        """With ``PeftModel``, which changes the pipeline's U-Net in place."""
        pipeline = super().python(base, base)
        return [
            pipeline[0],
            "from peft import PeftModel",
            *pipeline[1:],
            f"PeftModel.from_pretrained(pipe.unet, {folder!r})",
        ]

    def files(self, folder: Path) -> list[Path]:
        """The adapter's, where it is no other kind's."""
        path = folder / _FILE
        is_there = path.is_file() and _settings(folder).get("peft_type") == self.peft_type
        return [path] if is_there else []

    def stored(self, folder: Path, option: str) -> tuple[dict[str, Any], list[str]]:
        """From both files."""
        from safetensors import SafetensorError, safe_open

        path = folder / _FILE
        try:
            with safe_open(path, framework="np") as file:
                names = list(file.keys())
        except SafetensorError as error:
            raise UserError(
                f"{option}: {path} cannot be read: {error}. Export it again: python -m finetune.export RUN step=best"
            ) from error
        return _settings(folder), [name.removeprefix(_PREFIX) for name in names]

    def tensors(self, folder: Path) -> dict[str, Tensor]:
        """From the file of weights."""
        from safetensors.torch import load_file

        stored = load_file(folder / _FILE)
        return {name.removeprefix(_PREFIX): weight for name, weight in stored.items()}


def _settings(folder: Path) -> dict[str, Any]:
    found = read_json(folder / _SETTINGS)
    return found if isinstance(found, dict) else {}
