"""Adapters that diffusers' own loader does not read for Stable Diffusion: their exports are peft's."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from curate.run.files import read_json, write_json
from curate.run.schema import UserError
from finetune.methods.adapters.adapter import Adapter, Stored, plain_settings
from finetune.methods.interface import UNET, text_name

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from torch import Tensor

    from finetune.models.config import ModelConfig
    from finetune.models.interface import LatentDiffusion

_FILE, _SETTINGS = "adapter_model.safetensors", "adapter_config.json"  # as peft names them
_PREFIX = "base_model.model."  # of the weights' names in the file
_TEXT = ("text_encoder", "text_encoder_2")  # folders of their adapters


@dataclass
class PeftAdapter(Adapter):
    """An adapter that ``PeftModel.from_pretrained(pipe.unet, folder)`` loads; of text encoders in folders of their names.

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
        """Write ``adapter_model.safetensors`` and ``adapter_config.json``, for each network."""
        for part, network in self.networks(model).items():
            _save(network, _folder(folder, part))

    def load(self, config: ModelConfig, folder: Path) -> DiffusionPipeline:
        """The base model's pipeline with the adapters in ``folder``."""
        from peft import PeftModel

        from finetune.models import load_pipeline

        pipeline = load_pipeline(config)
        with warnings.catch_warnings():  # peft asks transformers' text encoders by a former name
            warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`")
            for part in _parts(folder):
                PeftModel.from_pretrained(getattr(pipeline, part), str(_folder(folder, part)))
        return pipeline  # whose networks were changed in place

    def python(self, base: str, folder: str) -> list[str]:
        """With ``PeftModel``, which changes the pipeline's networks in place."""
        pipeline = super().python(base, base)
        loaded = [
            f"PeftModel.from_pretrained(pipe.{part}, {str(_folder(Path(folder), part))!r})"
            for part in _parts(Path(folder))
        ]
        return [
            pipeline[0],
            "from peft import PeftModel",
            *pipeline[1:],
            *loaded,
        ]

    def files(self, folder: Path) -> list[Path]:
        """The adapters', where they are no other kind's."""
        path = folder / _FILE
        is_there = path.is_file() and _settings(folder).get("peft_type") == self.peft_type
        return [_folder(folder, part) / _FILE for part in _parts(folder)] if is_there else []

    def stored(self, folder: Path, option: str) -> dict[str, Stored]:
        """From both files of each network."""
        found = {}
        for part in _parts(folder):
            names = _names(_folder(folder, part) / _FILE, option)
            plain = [name.removeprefix(_PREFIX) for name in names]
            found[part] = _settings(_folder(folder, part)), plain
        return found

    def tensors(self, folder: Path) -> dict[str, Tensor]:
        """From the files of weights."""
        from safetensors.torch import load_file

        found = {}
        for part in _parts(folder):
            for name, weight in load_file(_folder(folder, part) / _FILE).items():
                plain = name.removeprefix(_PREFIX)
                found[plain if part == UNET else f"{part}.{text_name(plain)}"] = weight
        return found


def _folder(folder: Path, part: str) -> Path:
    """Where the adapter of a network is in an export."""
    return folder if part == UNET else folder / part


def _parts(folder: Path) -> list[str]:
    """The networks that an export has adapters of."""
    return [UNET, *(part for part in _TEXT if (folder / part / _FILE).is_file())]


def _save(network: Any, folder: Path) -> None:
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    settings = plain_settings(network.peft_config["default"].to_dict())
    write_json(folder / _SETTINGS, {name: settings[name] for name in sorted(settings)})
    weights = {
        f"{_PREFIX}{name}": weight.detach().cpu().contiguous()
        for name, weight in get_peft_model_state_dict(network, save_embedding_layers=False).items()
    }
    save_file(weights, folder / _FILE, metadata={"format": "pt"})


def _names(path: Path, option: str) -> list[str]:
    """Of the weights in a file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            return list(file.keys())
    except SafetensorError as error:
        raise UserError(
            f"{option}: {path} cannot be read: {error}. Export it again: python -m finetune.export RUN step=best"
        ) from error


def _settings(folder: Path) -> dict[str, Any]:
    found = read_json(folder / _SETTINGS)
    return found if isinstance(found, dict) else {}
