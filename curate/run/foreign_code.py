"""Refuse a model's folder that asks for code of its own to be run, before anything in it is loaded.

A model is numbers and settings. Hugging Face's libraries can also import Python that lies beside them, or
that the settings name; whoever sent the folder would then run commands here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from curate.run.schema import UserError

CODE_KEYS = ("trust_remote_code", "auto_map", "custom_pipeline", "custom_pipelines")
"""Settings by which transformers and diffusers import Python from a folder or from the hub."""

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def refuse_code(folder: Path, option: str) -> None:
    """Look through all JSON files of a model's folder for settings that run code.

    Args:
        folder: of the model.
        option: the key and value that name it, for the message.

    Raises:
        UserError: names the file and the setting.
    """
    for path in sorted(folder.rglob("*.json")):
        if not path.is_file():
            continue
        try:
            content = json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            continue  # whoever needs it reports that
        if key := _code_key(content):
            raise UserError(
                f"{option}: {path.relative_to(folder)} sets {key!r}, which runs Python of the model's author. "
                "Models run no code of their own here; take one that is made of a class in diffusers, "
                "transformers or open_clip"
            )


def refuse_pickles(folder: Path, option: str) -> None:
    """Refuse a folder whose weights would have to be read from pickles, which can run code.

    Raises:
        UserError: it holds pickles and no safetensors; names them.
    """
    there = sorted(path.name for path in folder.glob("*") if path.suffix in _PICKLES)
    if not there or any(folder.glob("*.safetensors")):
        return
    raise UserError(
        f"{option}: {folder} must hold weights as .safetensors and holds only {', '.join(there[:3])}, which are "
        "pickles and can run code. Save them again with safetensors.torch.save_file on a machine that trusts them, "
        "or take a copy of the model that has them"
    )


def _code_key(content: Any) -> str:
    """The first setting that runs code, at any depth; "" where there is none."""
    if isinstance(content, dict):
        for key, value in content.items():
            # A number is a token's place in a vocabulary.
            if key in CODE_KEYS and value and (value is True or not isinstance(value, int | float)):
                return str(key)
        content = list(content.values())
    if not isinstance(content, list):
        return ""
    return next((key for value in content if (key := _code_key(value))), "")
