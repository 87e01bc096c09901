"""Export the finished starter models as fp16 safetensors into the folders that the packages load."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import save

from curate.run.files import atomic_write, give_usual_permissions, write_json
from workflows.starter.tokenizer import load_tokenizer, write_tokenizer

PACKAGES = Path(__file__).resolve().parents[2]
CLIP_FOLDER = PACKAGES / "curate" / "starter_clip"
LDM_FOLDER = PACKAGES / "finetune" / "starter_ldm"
CARD = "README.md"


def export_clip(model: Any, config: dict[str, Any], folder: Path = CLIP_FOLDER) -> None:
    """Write an open_clip model and its tokenizer as a folder for ``local-dir:``."""
    weights = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    with atomic_write(folder / "open_clip_model.safetensors") as stream:
        stream.write(save(weights, metadata={"format": "pt"}))
    write_json(folder / "open_clip_config.json", config)
    write_tokenizer(folder)


def export_pipeline(
    unet: Any, vae: Any, text_encoder: Any, scheduler: dict[str, Any], folder: Path = LDM_FOLDER
) -> None:
    """Write a ``StableDiffusionPipeline`` folder in diffusers' layout; the model card stays.

    The models passed in are rounded to fp16 in place.
    """
    from diffusers import DDPMScheduler, StableDiffusionPipeline

    part, old = (folder.with_name(f".{folder.name}.{what}") for what in ("part", "old"))
    if old.exists() and not folder.exists():
        old.replace(folder)  # an earlier export stopped between its two renames
    shutil.rmtree(part, ignore_errors=True)
    pipeline = StableDiffusionPipeline(
        vae=vae.half(),
        text_encoder=text_encoder.half(),
        tokenizer=load_tokenizer(part / "tokenizer"),
        unet=unet.half(),
        scheduler=DDPMScheduler(**scheduler),  # type: ignore[arg-type]
        safety_checker=None,  # type: ignore[arg-type]
        feature_extractor=None,  # type: ignore[arg-type]
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(part, safe_serialization=True)
    _clean_configs(part)
    give_usual_permissions(part)
    if (folder / CARD).exists():
        shutil.copyfile(folder / CARD, part / CARD)
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.replace(old)  # a backup with the card until the new folder is in place
    part.replace(folder)
    shutil.rmtree(old, ignore_errors=True)


def _clean_configs(folder: Path) -> None:
    """Remove local paths from the component configs and set the text encoder's dtype to fp32.

    transformers loads a text encoder in its stored dtype, diffusers the other models in fp32; mixed
    dtypes would fail.
    """
    for path in folder.rglob("config.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        content.pop("_name_or_path", None)
        if "dtype" in content:
            content["dtype"] = "float32"
        write_json(path, content)
