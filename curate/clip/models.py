"""Identify the CLIP that the settings name: tag, files, device, precision, fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from difflib import get_close_matches
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from curate.clip.config import ClipConfig
from curate.run.devices import has_no_gpu
from curate.run.files import read_json, sha256_of
from curate.run.foreign_code import refuse_code, refuse_pickles
from curate.run.schema import UserError

LOCAL = "local-dir:"
# The first names that open_clip looks for in such a folder; beside others it might take a pickle.
_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")
_PACKAGES = ("open_clip_torch", "torch", "timm", "transformers", "pillow")
_BATCH_SIZE = {"cuda": 512, "mps": 64, "cpu": 32}
_PIXELS = "upright-by-header-srgb-on-white"  # how images are decoded, see measures.decode.decode


def check(config: ClipConfig) -> None:
    """Refuse a model that does not exist, without importing open_clip (which takes seconds).

    Raises:
        UserError: an unknown name, with near ones, or a name without ``clip.pretrained``.
        FileNotFoundError: a ``local-dir:`` folder without a model in it, or a file that is not there.
    """
    if config.name.startswith(LOCAL):
        _check_local(config)
        return
    names = _builtin_names()
    if config.name not in names:
        near = get_close_matches(config.name, names, n=5, cutoff=0.4)
        raise UserError(
            f"clip.name={config.name!r} is not a model of open_clip; near: {', '.join(near) or 'none'}. "
            "Type clip.name=local-dir:FOLDER for a model of your own"
        )
    if not config.pretrained:
        raise UserError(
            f"clip.name={config.name} without clip.pretrained has random weights; type "
            "clip.pretrained=TAG, such as openai or laion2b_s34b_b79k, or clip.pretrained=FILE"
        )
    weights_file(config)


def _check_local(config: ClipConfig) -> None:
    folder = local_folder(config)
    option = f"clip.name={config.name}"
    if config.pretrained:
        raise UserError(
            f"{option} brings its own weights; remove clip.pretrained={config.pretrained}"
        )
    if not (folder / "open_clip_config.json").is_file():
        raise FileNotFoundError(
            f"{option} holds no open_clip_config.json (looked in {folder}); "
            "type clip.name=local-dir:FOLDER, or clip=vit_b32_openai"
        )
    if not any((folder / name).is_file() for name in _WEIGHTS):
        refuse_pickles(folder, option)
        raise FileNotFoundError(f"{option}: no {_WEIGHTS[0]} in {folder}")
    for named in {folder, *_text_folders(folder)}:
        refuse_code(named, option)


def _text_folders(folder: Path) -> Iterator[Path]:
    """Other folders that a model takes its text encoder or tokenizer from."""
    text = (read_json(folder / "open_clip_config.json") or {}).get("model_cfg", {})
    text = text.get("text_cfg", {}) if isinstance(text, dict) else {}
    for key in ("hf_model_name", "hf_tokenizer_name"):
        named = (
            Path(str(text.get(key) or "").removeprefix(LOCAL)) if isinstance(text, dict) else Path()
        )
        if named.parts and named.is_dir():
            yield named


def weights_file(config: ClipConfig) -> Path | None:
    """The file that ``clip.pretrained`` names, as open_clip takes one; None for a tag, or none.

    Raises:
        FileNotFoundError: it looks like a file and there is none.
    """
    if not config.pretrained or config.name.startswith(LOCAL):
        return None
    path = Path(config.pretrained).expanduser()
    if path.is_file():
        return path
    if path.suffix in (".safetensors", ".pt", ".pth", ".bin", ".ckpt") or len(path.parts) > 1:
        raise FileNotFoundError(f"clip.pretrained={config.pretrained}: no such file")
    return None


def check_tag(config: ClipConfig) -> None:
    """Refuse weights that open_clip does not have, or that this name computes wrongly.

    Models trained with QuickGELU (OpenAI's own, DFN's, MetaCLIP's) are loaded by open_clip under a
    name with another activation too; similarities are then wrong, and only a warning says so. A
    ``local-dir:`` cannot be checked: its ``open_clip_config.json`` alone says which activation the
    weights were trained with. OpenAI's own need ``"quick_gelu": true`` there.

    Raises:
        UserError: with the accepted tags, or with the name to type.
    """
    import open_clip

    if weights_file(config) is not None:
        return
    name, tag = config.name, config.pretrained or ""
    weights = open_clip.get_pretrained_cfg(name, tag)
    if not weights:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name))
        raise UserError(f"clip.pretrained={tag!r} is not a tag of {name}; accepted: {tags}")
    model = open_clip.get_model_config(name) or {}
    if weights.get("quick_gelu") and not model.get("quick_gelu"):
        raise UserError(
            f"clip.name={name} computes GELU, and the weights clip.pretrained={tag} were trained "
            f"with QuickGELU; type clip.name={name}-quickgelu"
        )


def _builtin_names() -> list[str]:
    spec = find_spec("open_clip")
    if spec is None or spec.origin is None:
        raise UserError("clip scoring needs open_clip; type: pip install open_clip_torch")
    return sorted(path.stem for path in Path(spec.origin).parent.glob("model_configs/*.json"))


def local_folder(config: ClipConfig) -> Path:
    """The folder of a ``local-dir:`` name; a relative one is looked for in the working directory, then beside the package."""
    folder = Path(config.name.removeprefix(LOCAL))
    if not folder.is_absolute() and not folder.is_dir():
        folder = Path(__file__).resolve().parents[2] / folder
    return folder.resolve()


def label(config: ClipConfig) -> str:
    """The model's name and tag, as the ledger and the messages give them."""
    return " ".join(filter(None, (config.name.removeprefix(LOCAL), config.pretrained)))


def fingerprint(config: ClipConfig, draft: bool = False) -> str:
    """16 hex digits that change whenever a similarity may: model, weights, precision, libraries.

    With ``draft`` JPEGs are decoded at a fraction of their size, see ``measures.decode.decode``.

    A local model, and weights from a file, are identified by the hashes of the files; one of open_clip's by name,
    tag and the release that says what the tag means. Preprocessing and tokenizer are part of either. The device is
    not: in fp32 a GPU's similarities differ in the last digits only.
    """
    if config.name.startswith(LOCAL):
        files = sorted(local_folder(config).iterdir())
        model: Any = {
            file.name: _sha256(file) for file in files if file.is_file() and file.suffix != ".md"
        }
    else:
        file = weights_file(config)
        model = [config.name, config.pretrained if file is None else _sha256(file)]
    versions = {package: version(package) for package in _PACKAGES}
    pixels = f"{_PIXELS} drafted" if draft else _PIXELS
    known = json.dumps([model, precision(config), versions, pixels], sort_keys=True)
    return hashlib.blake2b(known.encode(), digest_size=8).hexdigest()


def _sha256(path: Path) -> str:
    """The hash of a file, which is read once a process unless its size or time of change differs."""
    found = path.stat()
    return _sha256_of_version(path, found.st_size, found.st_mtime_ns)


@cache
def _sha256_of_version(path: Path, _size: int, _mtime_ns: int) -> str:
    return sha256_of(path)


def device(config: ClipConfig) -> str:
    """The torch device to score on: CUDA, else Apple's GPU, else the processor, unless one is named.

    Raises:
        UserError: the named one is not available.
    """
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if config.device == "auto":
        return next((name for name, available in there.items() if available), "cpu")
    kind, _, number = config.device.partition(":")
    count = torch.cuda.device_count() if kind == "cuda" else 1
    if not there.get(kind, True) or int(number or 0) >= count:
        raise UserError(
            f"clip.device={config.device}: torch finds no such device here; type clip.device=auto, "
            "or install a torch that is built for it"
        )
    return config.device


def batch_size(config: ClipConfig, device: str) -> int:
    """Images or captions at a time on a device; larger batches are not faster, and one that does not fit is halved."""
    kind = device.partition(":")[0]
    return config.batch_size or _BATCH_SIZE.get(kind, _BATCH_SIZE["cpu"])


def arithmetic(config: ClipConfig) -> str:
    """What the last digits of an embedding depend on besides the ``fingerprint``, such as ``cpu-32``."""
    kind = _kind(config)
    return f"{kind}-{batch_size(config, kind)}"


def precision(config: ClipConfig) -> str:
    """``fp32``, ``bf16`` or ``fp16``; ``auto`` is bf16 on CUDA, else fp32."""
    if config.precision != "auto":
        return config.precision
    return "bf16" if _kind(config) == "cuda" else "fp32"


def _kind(config: ClipConfig) -> str:
    """``cuda``, ``mps`` or ``cpu``; one that is named is not looked for, as it may be another machine's."""
    if config.device != "auto":
        return config.device.partition(":")[0]
    return "cpu" if has_no_gpu() else device(config)
