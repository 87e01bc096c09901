"""What pictures are compared by: vectors from the judging CLIP, the model's VAE or a network of timm.

Nothing is downloaded: a network of timm takes its weights from a file. Every picture is encoded once,
real ones as training sees them: the centre, at the model's resolution.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.run.schema import UserError
from evaluate.measure_config import DistributionConfig
from finetune.drawing.picture import read_picture
from finetune.intervals import Array

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from finetune.models.interface import LatentDiffusion

_BATCH = 16
_VAE_CELLS = 8  # of pooled latents, on a side


@dataclass
class Features:
    """Vectors of pictures, each computed when first asked for.

    Attributes:
        encode: N RGB pictures => [N, D].
        known: vectors by the picture's name.
    """

    encode: Callable[[list[Image]], Array]
    known: dict[str, Array] = field(default_factory=dict)

    def of(self, names: Sequence[str], read: Callable[[str], Image]) -> Array:
        """[N, D] of the pictures of these names, which ``read`` opens."""
        missing = [name for name in dict.fromkeys(names) if name not in self.known]
        for start in range(0, len(missing), _BATCH):
            batch = missing[start : start + _BATCH]
            rows = self.encode([read(name) for name in batch])
            self.known.update(zip(batch, rows, strict=True))
        return np.stack([self.known[name] for name in names])

    def of_files(self, paths: Sequence[Path]) -> Array:
        """[N, D] of stored pictures."""
        return self.of([str(path) for path in paths], lambda name: read_picture(Path(name)))


def unit(vectors: Array) -> Array:
    """[N, D] scaled to length 1; a vector of zeros stays as it is."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths == 0, 1, lengths)


def of_vae(model: LatentDiffusion) -> Features:
    """The model's scaled latents, averaged in 8 × 8 cells and flattened."""
    import torch
    from torch.nn.functional import adaptive_avg_pool2d

    def encode(pictures: list[Image]) -> Array:
        pixels = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures]))
        latents = model.encode_images(pixels.permute(0, 3, 1, 2).float() / 127.5 - 1)
        side = min(_VAE_CELLS, *latents.shape[-2:])
        return adaptive_avg_pool2d(latents, side).flatten(1).cpu().numpy()

    return Features(encode)


def of_timm(config: DistributionConfig, device: torch.device) -> Features:
    """The pooled features of timm's ``config.timm_model`` with the weights in ``config.timm_weights``.

    Raises:
        UserError: timm has no such model, or the file does not fit it.
    """
    import timm
    import torch
    from safetensors.torch import load_file
    from timm.data import create_transform, resolve_model_data_config

    check_timm(config)
    network: Any = timm.create_model(config.timm_model or "", pretrained=False, num_classes=0)
    found = network.load_state_dict(load_file(config.timm_weights or ""), strict=False)
    if found.missing_keys:  # more than it needs, such as the classifier, does no harm
        missing = ", ".join(found.missing_keys[:3])
        raise UserError(
            f"distribution.timm_weights={config.timm_weights} does not hold {missing}, which "
            f"distribution.timm_model={config.timm_model} needs"
        )
    network = network.to(device).eval()
    transform: Any = create_transform(**resolve_model_data_config(network), is_training=False)

    @torch.inference_mode()
    def encode(pictures: list[Image]) -> Array:
        pixels = torch.stack([transform(picture) for picture in pictures])
        return network(pixels.to(device)).float().cpu().numpy()

    return Features(encode)


def check_timm(config: DistributionConfig) -> None:
    """Whether timm knows the model.

    Raises:
        UserError: it does not; names similar ones.
    """
    import timm

    name = config.timm_model or ""
    if not timm.is_model(name):
        similar = ", ".join(timm.list_models(f"*{name}*")[:5]) or "timm.list_models() names all"
        raise UserError(
            f"distribution.timm_model={name}: timm has no such model; it has: {similar}"
        )


def refuse_absent(config: DistributionConfig) -> None:
    """Refuse a network of timm that cannot be loaded, before anything is measured.

    Raises:
        UserError: timm is not installed, does not have the model, or the weights are no safetensors.
        FileNotFoundError: there is no file of weights.
    """
    if config.features != "timm":
        return
    key = f"distribution.timm_weights={config.timm_weights}"
    path = Path(config.timm_weights or "")
    if not path.is_file():
        raise FileNotFoundError(
            f"{key}: no such file. Download the model.safetensors of the model from "
            "huggingface.co/timm and name it here"
        )
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np"):
            pass
    except SafetensorError as error:
        raise UserError(f"{key} is not a safetensors file: {error}") from error
    if importlib.util.find_spec("timm") is None:
        raise UserError("distribution.features=timm needs timm; type: pip install timm")
    check_timm(config)
