"""Latents of stored pictures, as the training pictures are encoded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from finetune.cache import pictures_at_once
from finetune.drawing.picture import read_picture
from finetune.models.interface import LatentDiffusion


def encode(model: LatentDiffusion, paths: Sequence[Path], *, mirrored: bool = False) -> Tensor:
    """Latents [N, C, h, w], fp32 on the CPU, of stored pictures that have the model's resolution, or of their mirror images.

    All batches have the same size, the last one filled up, so that a picture's latent does not depend on
    the others.
    """
    size = pictures_at_once(model.resolution)
    parts = []
    for start in range(0, len(paths), size):
        pixels = [_pixels(path) for path in paths[start : start + size]]
        pixels = [each.flip(-1) for each in pixels] if mirrored else pixels
        batch = torch.stack(pixels + pixels[-1:] * (size - len(pixels)))
        parts.append(model.encode_images(batch).cpu()[: len(pixels)])
    return torch.cat(parts)


def _pixels(path: Path) -> Tensor:
    """[3, H, W] in [-1, 1]."""
    pixels = np.array(read_picture(path))
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 127.5 - 1
