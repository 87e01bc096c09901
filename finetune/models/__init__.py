"""The pipelines that can be fine-tuned, each found by the class that its ``model_index.json`` names."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.run.schema import UserError
from finetune.models.config import ModelConfig

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

    from finetune.models.interface import LatentDiffusion

# Class of the pipeline: module with functions load_model and load_pipeline, imported when it is needed.
# The variants of Stable Diffusion have the same parts; which of them can be trained, the module says.
MODELS = {
    "StableDiffusionPipeline": "finetune.models.sd",
    "StableDiffusionImg2ImgPipeline": "finetune.models.sd",
    "StableDiffusionInpaintPipeline": "finetune.models.sd",
}


def load_model(config: ModelConfig, device: torch.device | str = "cpu") -> LatentDiffusion:
    """Load the parts of the pipeline onto ``device``, frozen, fp32 and in evaluation mode.

    Raises:
        UserError: the files are not there, the hub does not answer, or the pipeline is not supported.
    """
    return _module(config).load_model(config, device)


def load_pipeline(config: ModelConfig) -> DiffusionPipeline:
    """The pipeline as diffusers loads it, fp32, on the CPU.

    Raises:
        UserError: as :func:`load_model`.
    """
    return _module(config).load_pipeline(config)


def refuse_unsupported(config: ModelConfig) -> None:
    """Check a pipeline's class without loading anything; a hub repository is checked when it is loaded.

    Raises:
        UserError: there is no pipeline at ``model.path``, or it is of a class that is not supported.
    """
    index = Path(config.location()) / "model_index.json"
    if index.is_file():
        _module_name(config, _read(index))


def _module(config: ModelConfig) -> Any:
    return import_module(_module_name(config, _index(config)))


def _module_name(config: ModelConfig, index: dict[str, Any]) -> str:
    name = index.get("_class_name") or "pipeline of no named class"
    if not isinstance(name, str):  # [file, class]: a pipeline with code of its own
        name = name[-1]
    if name not in MODELS:
        raise UserError(
            f"model.path={config.path} is a {name}, which is not supported; supported: "
            f"{', '.join(MODELS)}. Type model.path=... with one of those, or model=starter"
        )
    return MODELS[name]


def _index(config: ModelConfig) -> dict[str, Any]:
    """The content of ``model_index.json``, from the folder or, downloaded alone, from the hub."""
    location = config.location()
    local = Path(location) / "model_index.json"
    if local.is_file():
        return _read(local)
    from diffusers import DiffusionPipeline

    try:
        index: Any = DiffusionPipeline.load_config(location, revision=config.revision)
    except OSError as error:
        raise config.not_loaded(error) from error
    return index


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_bytes()))
    except ValueError as error:
        raise UserError(
            f"{path} cannot be read as JSON: {error}; copy the pipeline again"
        ) from error
