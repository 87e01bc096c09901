"""The pipelines that can be fine-tuned, each recognised by the parts that its ``model_index.json`` lists."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.run import hub
from curate.run.foreign_code import refuse_code, refuse_pickles
from curate.run.schema import UserError
from finetune.models.config import ModelConfig
from finetune.models.original.header import read_header, refuse_adapter
from finetune.models.refusals import refuse_epsilon, refuse_layer

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

    from finetune.models.interface import LatentDiffusion

# Module with functions load_model and load_pipeline, imported when it is needed: the parts of its
# pipelines, and their classes. The pipeline's own class decides how pictures are drawn (PAG, SAG, latent
# consistency), not how the parts are trained.
MODELS = {
    "finetune.models.sd": {
        "unet": "UNet2DConditionModel",
        "vae": "AutoencoderKL",
        "text_encoder": "CLIPTextModel",
        "tokenizer": "CLIPTokenizer",
    },
    "finetune.models.sdxl": {
        "unet": "UNet2DConditionModel",
        "vae": "AutoencoderKL",
        "text_encoder": "CLIPTextModel",
        "text_encoder_2": "CLIPTextModelWithProjection",
        "tokenizer": "CLIPTokenizer",
        "tokenizer_2": "CLIPTokenizer",
    },
}
# Where the parts' classes come from; the last one is a folder of diffusers, of safety checkers.
LIBRARIES = ("diffusers", "transformers", "stable_diffusion")
_INDEX, _SCHEDULER = "model_index.json", "scheduler/scheduler_config.json"
# Parts that training does not use. Any other, such as a motion adapter, is a reason to refuse.
UNUSED = {"scheduler", "safety_checker", "feature_extractor", "image_encoder"}


def load_model(
    config: ModelConfig,
    device: torch.device | str = "cpu",
    captions: str = "hidden",
    *,
    zero_terminal_snr: bool = False,
) -> LatentDiffusion:
    """Load the parts of the pipeline onto ``device``, frozen, fp32 and in evaluation mode.

    Args:
        config: says which. device: of all parts.
        captions: ``hidden`` or ``tokens``, see :class:`finetune.models.interface.LatentDiffusion`.
        zero_terminal_snr: see ``finetune.config.ObjectiveConfig``.

    Raises:
        UserError: the files are not there, the hub does not answer, or the pipeline is not supported, or it predicts
            epsilon with ``zero_terminal_snr``.
    """
    model = _module(config).load_model(config, device)
    model.captions = captions
    if zero_terminal_snr:
        import_module("finetune.models.noise").set_zero_terminal_snr(config, model)
    return model


def load_pipeline(config: ModelConfig) -> DiffusionPipeline:
    """The pipeline as diffusers loads it, fp32, on the CPU.

    Raises:
        UserError: as :func:`load_model`.
    """
    return _module(config).load_pipeline(config)


def refuse_unsupported(config: ModelConfig) -> None:
    """Check a pipeline before anything heavy is imported: its parts, a hub repository's list, a file's header.

    Raises:
        UserError: there is no pipeline at ``model.path``, it has parts that are not supported or run code of
            their own, weights that are pickles, or it is on the hub, which cannot be reached.
    """
    if config.single_file():
        _refuse_file(config)
        return
    index = _index(config)
    module = _module_name(config, index)
    parts = MODELS[module]
    _refuse_layer(config, module, lambda part: _part(config, f"{part}/config.json"))
    folder = Path(config.location())
    if not (folder / _INDEX).is_file():
        return
    option = f"model.path={config.path}"
    refuse_code(folder, option)
    for part, kind in parts.items():
        if not kind.endswith("Tokenizer"):
            refuse_pickles(folder / part, option)


def refuse_zero_terminal_snr(config: ModelConfig) -> None:
    """Refuse ``objective.zero_terminal_snr`` for a model that predicts epsilon, as far as that is known before it is loaded.

    Raises:
        UserError: it does.
    """
    predicts, file = config.prediction_type, config.single_file()
    if predicts is None and file and config.config is None:
        predicts = read_header(file, f"model.path={config.path}").prediction_type
    elif predicts is None:
        place = Path(config.config).expanduser() if config.config else None
        found = _settings(place / _SCHEDULER) if place else _part(config, _SCHEDULER)
        predicts = "v_prediction" if found is None else found.get("prediction_type", "epsilon")
    refuse_epsilon(config, predicts)


def _refuse_file(config: ModelConfig) -> None:
    """Check a pipeline in one file by its header, or by the settings that are named for it."""
    if config.config is not None:
        folder = Path(config.config).expanduser()
        if not (folder / _INDEX).is_file():
            raise UserError(
                f"model.config={config.config} is no folder with a {_INDEX}; give a folder in diffusers' layout, "
                "whose weights may be missing"
            )
        refuse_code(folder, f"model.config={config.config}")
        refuse_adapter(_names(config), f"model.path={config.path}")
        module = _module_name(config, _read(folder / _INDEX))
        _refuse_layer(config, module, lambda part: _settings(folder / part / "config.json"))
        return
    found = read_header(config.single_file() or Path(), f"model.path={config.path}")
    _refuse_layer(config, found.family.module, found.family.texts.get)
    if found.prediction_type is None and config.prediction_type is None:
        raise UserError(
            f"model.path={config.path} is {found.family.name}, of which some models predict the noise and others v, "
            "and does not say which. Type model.prediction_type=v_prediction (those of 768 px) or "
            "model.prediction_type=epsilon (base models, of 512 px)"
        )
    side = found.family.side(found.prediction_type or config.prediction_type)
    if 4 * config.resolution < side:
        raise UserError(
            f"model.resolution={config.resolution} is too small: model.path={config.path} is {found.family.name}, trained "
            f"on {side} px. Type model.resolution={side}"
        )


def _refuse_layer(
    config: ModelConfig, module: str, settings: Callable[[str], dict[str, Any] | None]
) -> None:
    """Refuse ``model.clip_skip`` where a text encoder has not that layer.

    Args:
        module: that loads the pipeline.
        settings: of a part, by its name; None where they are not known before the pipeline is loaded.
    """
    if config.clip_skip == 1:
        return
    left_out = 1 if module == "finetune.models.sdxl" else 0  # which its pipeline does not take
    for part in MODELS[module]:
        if not part.startswith("text_encoder") or (found := settings(part)) is None:
            continue
        if isinstance(layers := found.get("num_hidden_layers"), int):
            refuse_layer(config.clip_skip, layers - left_out, "model.clip_skip")


def _part(config: ModelConfig, name: str) -> dict[str, Any] | None:
    """A file of settings, from the folder or, downloaded alone, from the hub; None where it is not to be had."""
    location = Path(config.location())
    if location.is_dir():
        return _settings(location / name)
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return _read(Path(hf_hub_download(config.location(), name, revision=config.revision)))
    except (OSError, HfHubHTTPError):
        return None


def _settings(path: Path) -> dict[str, Any] | None:
    return _read(path) if path.is_file() else None


def _names(config: ModelConfig) -> list[str]:
    """Of the weights in a pipeline's one file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(config.single_file() or "", framework="np") as file:
            return list(file.keys())
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"model.path={config.path} cannot be read: {error}; copy the file again"
        ) from error


def _module(config: ModelConfig) -> Any:
    refuse_unsupported(config)
    file = config.single_file()
    if file and config.config is None:
        return import_module(read_header(file, f"model.path={config.path}").family.module)
    index = _read(Path(config.config or "").expanduser() / _INDEX) if file else _index(config)
    return import_module(_module_name(config, index))


def _module_name(config: ModelConfig, index: dict[str, Any]) -> str:
    _refuse_other_libraries(config, index)
    name = index.get("_class_name") or "pipeline of no named class"
    own_code = not isinstance(name, str)  # [file, class]: what it computes is not known
    parts = _parts(index)
    for module, supported in MODELS.items():
        if parts == supported and index.get("_class_name") and not own_code:
            return module
    known = " or ".join(
        ", ".join(f"{part} {kind}" for part, kind in supported.items())
        for supported in MODELS.values()
    )
    raise UserError(
        f"model.path={config.path} is a {name[-1] if own_code else name}, which is not supported; "
        "supported: text-to-image pipelines like StableDiffusionPipeline and StableDiffusionXLPipeline, with "
        f"{known}, and no other parts. Type model.path=... with such a pipeline, or model=starter"
    )


def _refuse_other_libraries(config: ModelConfig, index: dict[str, Any]) -> None:
    """A part's entry is [library, class]: diffusers imports the library, whatever Python it names."""
    for part, entry in index.items():
        if isinstance(entry, list) and entry[:1] != [None] and entry[0] not in LIBRARIES:
            if part.startswith("_"):
                continue  # the pipeline's own class, which is refused below
            raise UserError(
                f"model.path={config.path}: model_index.json takes the part {part!r} from {entry[0]!r}, and parts "
                f"are taken from {' and '.join(LIBRARIES[:2])} only. Models run no code of their own here"
            )


def _parts(index: dict[str, Any]) -> dict[str, str]:
    """The class of each part that is trained or encodes; null parts and plain settings are left out."""
    return {
        part: entry[-1].removesuffix("Fast")  # of a tokenizer: the same one in another language
        for part, entry in index.items()
        if isinstance(entry, list) and entry and isinstance(entry[-1], str)
        if part not in UNUSED and not part.startswith("_")
    }


def _index(config: ModelConfig) -> dict[str, Any]:
    """The content of ``model_index.json``, from the folder or, downloaded alone, from the hub."""
    location = config.location()
    local = Path(location) / _INDEX
    if local.is_file():
        return _read(local)
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import HfHubHTTPError

    if not hub.is_reachable():
        constants.HF_HUB_OFFLINE = True  # what is cached is taken without a minute of retries
        cached = try_to_load_from_cache(location, _INDEX, revision=config.revision)
        if not isinstance(cached, str):
            raise UserError(
                f"model.path={config.path} could not be loaded: it is not on this machine, and the Hugging Face hub "
                "cannot be reached. Download it elsewhere and type model.path=FOLDER, or model=starter for the built-in one"
            )
        return _read(Path(cached))
    try:
        return _read(Path(hf_hub_download(location, _INDEX, revision=config.revision)))
    except (OSError, HfHubHTTPError) as error:
        raise config.not_loaded(error) from error


def _read(path: Path) -> dict[str, Any]:
    try:
        index = json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(
            f"{path} cannot be read as JSON: {error}; copy the pipeline again"
        ) from error
    if not isinstance(index, dict):
        raise UserError(f"{path} holds no JSON object; copy the pipeline again")
    return index
