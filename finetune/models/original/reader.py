"""Read a pipeline from one file, without the hub: diffusers converts the weights, the settings are written here."""

from __future__ import annotations

import gzip
import json
import tempfile
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import DiffusionPipeline
from diffusers.loaders.single_file_utils import SingleFileComponentError
from transformers import CLIPTokenizer

from curate.run.schema import UserError
from finetune.models.config import ModelConfig
from finetune.models.original.families import Family
from finetune.models.original.header import Header, read_header

Kind = TypeVar("Kind", bound=DiffusionPipeline)
_TOKENS = 77  # that CLIP reads
_MERGES = (
    49408 - 2 * 256 - 2
)  # of CLIP's vocabulary, beside 256 bytes, the same at the end of a word, and two marks
_END, _START = "<|endoftext|>", "<|startoftext|>"


def load(kind: type[Kind], config: ModelConfig, path: Path, **options: Any) -> Kind:
    """The pipeline in a file, fp32, on the CPU.

    Args:
        kind: its class.
        config: its ``config`` names a folder with the settings, where the published ones are not the file's.
        path: of the file. options: of the pipeline.

    Raises:
        UserError: the file does not hold the weights that the settings ask for.
    """
    if config.config is not None:
        return _converted(kind, config, path, Path(config.config).expanduser(), options)
    header = read_header(path, f"model.path={config.path}")
    with tempfile.TemporaryDirectory() as folder:
        write_settings(Path(folder), header, config.prediction_type)
        return _converted(kind, config, path, Path(folder), options)


def _converted(
    kind: type[Kind], config: ModelConfig, path: Path, settings: Path, options: dict[str, Any]
) -> Kind:
    try:
        pipeline = kind.from_single_file(  # type: ignore[attr-defined]
            str(path), config=str(settings), local_files_only=True, **options
        )
    except (OSError, ValueError, KeyError, RuntimeError, SingleFileComponentError) as error:
        # torch's words for weights that were not in the file
        lacks = "weights are missing" if "meta tensor" in str(error) else error
        raise UserError(
            f"model.path={config.path} could not be read with the settings of "
            f"{config.config or 'the published model'}: {lacks}. Where they are not the file's, type model.config=FOLDER, "
            "a folder in diffusers' layout whose settings are"
        ) from error
    for part, module in pipeline.components.items():
        if isinstance(module, torch.nn.Module):
            lacks = [name for name, weight in module.state_dict().items() if weight.is_meta]
            if lacks:
                raise UserError(
                    f"model.path={config.path} lacks {len(lacks)} weights of the {part}, such as {lacks[0]}; copy the "
                    "file again, or type model.config=FOLDER with the settings that are the file's"
                )
            module.float()  # only now, as what is lacking cannot be converted
    return pipeline


def write_settings(folder: Path, header: Header, prediction_type: str | None) -> None:
    """Write all of a pipeline in diffusers' layout but the weights.

    Args:
        folder: is there and empty.
        header: of the file.
        prediction_type: where the file does not say it.
    """
    family = header.family
    scheduler, noise = family.scheduler
    predicts = header.prediction_type or prediction_type
    noise = noise | {"prediction_type": predicts}
    side = family.side(predicts)
    if header.zero_snr:
        noise["rescale_betas_zero_snr"] = True
    _write(folder / "model_index.json", index_of(family))
    _write(
        folder / "unet" / "config.json",
        _settings("UNet2DConditionModel", family.unet | {"sample_size": side // 8}),
    )
    _write(
        folder / "vae" / "config.json",
        _settings("AutoencoderKL", family.vae | {"sample_size": side}),
    )
    _write(folder / "scheduler" / "scheduler_config.json", _settings(scheduler, noise))
    for (part, text), pad in zip(family.texts.items(), family.pads, strict=True):
        _write(folder / part / "config.json", text)
        tokenizer(pad).save_pretrained(folder / part.replace("text_encoder", "tokenizer"))


def index_of(family: Family) -> dict[str, Any]:
    """The content of ``model_index.json``."""
    parts = {
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "scheduler": ["diffusers", family.scheduler[0]],
    }
    for part, text in family.texts.items():
        parts[part] = ["transformers", text["architectures"][0]]
        parts[part.replace("text_encoder", "tokenizer")] = ["transformers", "CLIPTokenizer"]
    return _settings(family.pipeline, parts | family.own)


def tokenizer(pad: str) -> CLIPTokenizer:
    """CLIP's, from the vocabulary in OpenCLIP's package.

    Args:
        pad: the token that fills up a text.
    """
    from open_clip.tokenizer import bytes_to_unicode, default_bpe

    with gzip.open(default_bpe(), "rt", encoding="utf-8") as stream:
        lines = stream.read().split("\n")[1 : _MERGES + 1]
    merges = [tuple(line.split()) for line in lines]
    letters = list(bytes_to_unicode().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges)]
    vocabulary = {word: number for number, word in enumerate([*words, _START, _END])}
    return CLIPTokenizer(
        vocab=vocabulary,
        merges=merges,  # type: ignore[arg-type]  # pairs, as the class itself reads them from a file
        model_max_length=_TOKENS,
        bos_token=_START,
        eos_token=_END,
        unk_token=_END,
        pad_token=pad,
    )


def _settings(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    return {"_class_name": name, "_diffusers_version": "0.42.0", **settings}


def _write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2))
