"""The CLIP that scores pairs: any model of open_clip, each caption encoded at its own length."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.command import UserError
from curate.config import ClipConfig
from curate.files import sha256_of

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

LOCAL = "local-dir:"
_PACKAGES = ("open_clip_torch", "torch", "timm", "transformers", "pillow")


def check(config: ClipConfig) -> None:
    """Refuse a model that does not exist, without importing open_clip (which takes seconds).

    Raises:
        UserError: an unknown name, with near ones, or a name without ``clip.pretrained``.
        FileNotFoundError: a ``local-dir:`` folder without a model in it.
    """
    if config.name.startswith(LOCAL):
        folder = _local_folder(config)
        if not (folder / "open_clip_config.json").is_file():
            raise FileNotFoundError(
                f"clip.name={config.name} holds no open_clip_config.json (looked in {folder}); "
                "type clip.name=local-dir:FOLDER, or clip=vit_b32_openai"
            )
        if not any(folder.glob("open_clip_*.safetensors")):
            raise FileNotFoundError(
                f"clip.name={config.name}: no open_clip_model.safetensors in {folder}"
            )
        return
    names = _builtin_names()
    if config.name not in names:
        near = get_close_matches(config.name, names, n=5, cutoff=0.4)
        raise UserError(
            f"clip.name={config.name!r} is no model of open_clip; near: {', '.join(near) or 'none'}. "
            "Type clip.name=local-dir:FOLDER for a model of your own"
        )
    if not config.pretrained:
        raise UserError(
            f"clip.name={config.name} without clip.pretrained has random weights; type "
            "clip.pretrained=TAG, such as openai or laion2b_s34b_b79k"
        )


def check_tag(config: ClipConfig) -> None:
    """Refuse weights that open_clip does not have, or that this name computes wrongly.

    Models trained with QuickGELU (OpenAI's own, DFN's, MetaCLIP's) are loaded by open_clip under a
    name with another activation too; similarities are then off, and only a warning says so.

    Raises:
        UserError: with the accepted tags, or with the name to type.
    """
    import open_clip

    name, tag = config.name, config.pretrained or ""
    weights = open_clip.get_pretrained_cfg(name, tag)
    if not weights:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name))
        raise UserError(f"clip.pretrained={tag!r} is no tag of {name}; accepted: {tags}")
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


def _local_folder(config: ClipConfig) -> Path:
    """The folder of a ``local-dir:`` name; a relative one is looked for here, then by the package."""
    folder = Path(config.name.removeprefix(LOCAL))
    if not folder.is_absolute() and not folder.is_dir():
        folder = Path(__file__).resolve().parents[1] / folder
    return folder.resolve()


def label(config: ClipConfig) -> str:
    """What people call the model: name and weights."""
    return " ".join(filter(None, (config.name.removeprefix(LOCAL), config.pretrained)))


def fingerprint(config: ClipConfig) -> str:
    """16 hex digits that change whenever a similarity may: model, weights, precision, libraries.

    A local model is known by the hashes of its files; one of open_clip's by name, tag and the
    release that says what the tag means. Preprocessing and tokenizer are part of either.
    """
    if config.name.startswith(LOCAL):
        files = sorted(_local_folder(config).iterdir())
        model: Any = {file.name: sha256_of(file) for file in files if file.suffix != ".md"}
    else:
        model = [config.name, config.pretrained]
    versions = {package: version(package) for package in _PACKAGES}
    known = json.dumps(
        [model, _precision(config), versions, "upright-rgb-on-white"], sort_keys=True
    )
    return hashlib.blake2b(known.encode(), digest_size=8).hexdigest()


def _precision(config: ClipConfig) -> str:
    if config.precision != "auto":
        return config.precision
    return "bf16" if _device(config.device) == "cuda" else "fp32"


def _device(device: str) -> str:
    if device != "auto":
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def load_clip(config: ClipConfig, device: str | torch.device | None = None) -> ClipScorer:
    """Load model, preprocessing and tokenizer; ``device`` overrides ``config.device``.

    Raises:
        UserError: the weights cannot be had (an unknown tag, no network) or belong to another name.
    """
    import open_clip
    import torch

    check(config)
    local = config.name.startswith(LOCAL)
    name = f"{LOCAL}{_local_folder(config)}" if local else config.name
    if not local:
        check_tag(config)
    target = torch.device(device or _device(config.device))
    try:
        model, _, preprocess = open_clip.create_model_and_transforms(
            name, pretrained=None if local else config.pretrained, device=target
        )
    except (RuntimeError, OSError) as error:
        raise UserError(
            f"clip.name={config.name}: the weights cannot be loaded ({error}). Without the hub, type "
            "clip=custom clip.name=local-dir:FOLDER, or clip=starter for drawings"
        ) from error
    return ClipScorer(
        name=label(config),
        fingerprint=fingerprint(config),
        model=model.eval(),
        preprocess=preprocess,
        tokenizer=open_clip.get_tokenizer(name),
        device=target,
        dtype=torch.bfloat16 if _precision(config) == "bf16" else torch.float32,
        batch_size=config.batch_size,
    )


@dataclass(frozen=True)
class ClipScorer:
    """A CLIP ready to encode. Embeddings have unit length, so their dot product is the similarity."""

    name: str
    fingerprint: str
    model: Any
    preprocess: Any
    tokenizer: Any
    device: torch.device
    dtype: torch.dtype
    batch_size: int

    def encode_images(self, images: list[Image]) -> np.ndarray:
        """N RGB pictures => N x D float32, unit length."""
        return self.encode_pixels([self.preprocess(image) for image in images])

    def encode_pixels(self, pixels: list[torch.Tensor]) -> np.ndarray:
        """N results of ``preprocess`` => N x D float32, unit length."""
        import torch

        batches = [
            self._run(self.model.encode_image, torch.stack(pixels[start : start + self.batch_size]))
            for start in range(0, len(pixels), self.batch_size)
        ]
        return np.concatenate(batches) if batches else np.zeros((0, 0), np.float32)

    def encode_texts(self, texts: list[str]) -> np.ndarray:
        """N captions => N x D float32, unit length; equal captions cost one.

        Where the text tower is causal and pooled at the end of the text, what follows that token
        cannot reach it: captions are grouped by length and encoded without padding.
        """
        distinct = list(dict.fromkeys(texts))
        if not distinct:
            return np.zeros((0, 0), np.float32)
        tokens = self.tokenizer(distinct)
        lengths = _own_lengths(self.model, tokens)
        groups: dict[int, list[int]] = defaultdict(list)
        for row, length in enumerate(lengths):
            groups[length].append(row)
        encoded: dict[int, np.ndarray] = {}
        for length, rows in sorted(groups.items()):
            for start in range(0, len(rows), self.batch_size):
                batch = rows[start : start + self.batch_size]
                features = self._run(self._encode_tokens, tokens[batch, :length])
                encoded.update(zip(batch, features, strict=True))
        row_of = {text: row for row, text in enumerate(distinct)}
        return np.stack([encoded[row_of[text]] for text in texts])

    def _encode_tokens(self, tokens: torch.Tensor) -> torch.Tensor:
        """Open_clip's own forward pass, its position table and causal mask cut to B x L tokens."""
        from torch.func import functional_call

        length, tower = tokens.shape[1], getattr(self.model, "text", None)
        owner = self.model if tower is None else tower
        if length == self.model.context_length:
            return self.model.encode_text(tokens)
        cut = {
            "positional_embedding": owner.positional_embedding[:length],
            "attn_mask": owner.attn_mask[:length, :length],
        }
        if tower is not None:
            return functional_call(tower, cut, (tokens,))
        output = functional_call(self.model, cut, (None, tokens))
        return output["text_features"] if isinstance(output, dict) else output[1]

    def _run(self, encode: Any, batch: torch.Tensor) -> np.ndarray:
        import torch

        low = self.dtype != torch.float32
        with torch.inference_mode(), torch.autocast(self.device.type, self.dtype, enabled=low):
            features = encode(batch.to(self.device, non_blocking=True))
        return torch.nn.functional.normalize(features.float(), dim=-1).cpu().numpy()


def _own_lengths(model: Any, tokens: torch.Tensor) -> list[int]:
    """Tokens of each caption up to its end-of-text, or the padded length where that is not enough."""
    from open_clip.transformer import TextTransformer

    tower = getattr(model, "text", model)
    pooling = getattr(tower, "text_pool_type", None) or getattr(tower, "pool_type", None)
    plain = tower is model or (isinstance(tower, TextTransformer) and tower.cls_emb is None)
    if not plain or getattr(tower, "attn_mask", None) is None or pooling not in ("argmax", "eos"):
        return [tokens.shape[1]] * len(tokens)
    if pooling == "argmax":  # end-of-text is the highest id
        return (tokens.argmax(dim=-1) + 1).tolist()
    end = getattr(tower, "text_eos_id", None) or tower.eos_id
    return ((tokens == end).int().argmax(dim=-1) + 1).tolist()
