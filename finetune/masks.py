"""Masks: where in a picture the loss counts (``objective.mask``), from the pictures ``key.mask.png`` in the shards.

A mask is cropped and resized as its picture is, and its mean over the pixels of each position of the latent is that
position's weight, which the squared error is multiplied by. So white counts, black does not. The loss stays the mean over
all positions: it is not divided by the mask's mean, so that a picture counts as much as there is to see in it, as in
kohya's ``apply_masked_loss`` (sd-scripts, library/custom_train_functions.py: area interpolation, then the plain mean), and
in OneTrainer unless ``normalize_masked_area_loss`` is on (modules/util/loss/masked_loss.py). A picture without a mask counts
whole. ``objective.unmasked_weight`` is OneTrainer's: no position weighs less.

Held-out losses are weighted alike. If they were not, a training would be called worse, and be stopped, for what it was
asked not to look at; in kohya and OneTrainer the validation loss is masked, too.
"""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from curate.measures.decode import decode
from curate.run.companions import MASK
from finetune.cache.companions import Recipe
from finetune.cache.framing import View


def grey(data: bytes) -> Image.Image:
    """A mask's 8 bits: its alpha where it has one that is not opaque all over, else how light it is.

    Raises:
        UnreadableImage: it is no picture.
    """
    whole = decode(data)  # also says whether it is a picture at all
    with Image.open(io.BytesIO(data)) as image:
        if image.has_transparency_data:
            upright = ImageOps.exif_transpose(image).convert("RGBA")
            alpha = upright.getchannel("A")
            if alpha.getextrema() != (255, 255):
                return alpha
    return whole.convert("L")


def weights(mask: Image.Image, view: View, pixels_per_latent: int, least: float) -> Tensor:
    """[1, h, w] fp32, 0 ... 1: the mean of the pixels of each position, none below ``least``."""
    cut = view.cropped(mask.size, b"").cut(mask)
    pixels = torch.from_numpy(np.array(cut)).float() / 255
    mean = torch.nn.functional.avg_pool2d(pixels[None], pixels_per_latent)
    return mean.clamp(min=least)


def recipe(resolution: int, pixels_per_latent: int, least: float) -> Recipe:
    """How masks are made for a model."""
    side = resolution // pixels_per_latent
    return Recipe(
        MASK,
        MASK,
        f"area {pixels_per_latent} {least}",
        lambda data, view: weights(grey(data), view, pixels_per_latent, least),
        4 * side**2,
        torch.ones(1, side, side),
    )
