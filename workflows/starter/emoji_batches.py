"""Batches of emoji pictures: sampling and augmentation."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from workflows.starter.emoji_sets import Pictures

ALIAS_SHARE = 0.2  # of the pictures in a batch


class CaptionSampler:
    """Draws captions by weight, then a picture of each; no caption repeats within a batch.

    A caption without a skin tone has weight 1; all skin tones of a concept share ``toned_weight``. With
    2 they make about a quarter of a batch, with 0.5 a thirteenth; they are half of all pictures.
    """

    def __init__(self, pictures: Pictures, toned_weight: float = 2.0) -> None:
        caption_of = np.unique(pictures.captions, return_inverse=True)[1]
        order = np.argsort(caption_of, kind="stable")
        counts = np.bincount(caption_of)
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        self.rows = torch.from_numpy(order)
        self.starts, self.counts = torch.from_numpy(starts), torch.from_numpy(counts)
        first = order[starts]
        toned = pictures.toned()[first]
        concepts = pictures.concepts[first]
        names, tones = np.unique(concepts[toned], return_counts=True)
        tones_of = dict(zip(names, tones, strict=True))
        weights = [
            toned_weight / tones_of[concept] if is_toned else 1.0
            for concept, is_toned in zip(concepts, toned, strict=True)
        ]
        self.weights = torch.tensor(weights)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Row numbers (count,) of pictures with distinct captions, each in a random style; int64."""
        device = generator.device
        chosen = torch.multinomial(self.weights.to(device), count, generator=generator).cpu()
        fraction = torch.rand(count, generator=generator, device=device).cpu()
        within = (fraction * self.counts[chosen]).long().clamp_max(self.counts[chosen] - 1)
        return self.rows[self.starts[chosen] + within]


class NameSampler:
    """Draws a name for each picture: its caption or, for `ALIAS_SHARE` of the pictures, any of its names.

    Attributes:
        names: the names of all pictures, picture by picture, each beginning with its caption.
        first: index in ``names`` of each picture's caption; int64 (N,).
    """

    def __init__(self, pictures: Pictures) -> None:
        names = pictures.names()
        self.names = [name for some in names for name in some]
        self.counts = torch.tensor([len(some) for some in names])
        self.first = self.counts.cumsum(0) - self.counts

    def draw(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Indices into ``names``; int64 (len(rows),) on the CPU."""
        device = generator.device
        aliased = torch.rand(len(rows), generator=generator, device=device).cpu() < ALIAS_SHARE
        pick = torch.rand(len(rows), generator=generator, device=device).cpu()
        return self.first[rows] + torch.where(aliased, (pick * self.counts[rows]).long(), 0)


def as_floats(images: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """uint8 (N, H, W, 3) to float32 (N, 3, H, W) in [0, 1]."""
    tensor = torch.as_tensor(images).to(device)
    return tensor.permute(0, 3, 1, 2).float().div(255).contiguous()


def uniform(shape: tuple[int, ...], low: float, high: float, generator: torch.Generator) -> Tensor:
    """Uniform draws in [low, high) on the generator's device."""
    return low + (high - low) * torch.rand(shape, generator=generator, device=generator.device)


def outline(images: Tensor, generator: torch.Generator) -> Tensor:
    """Draw black lines along strong edges and fade the fills, like a line drawing.

    Args:
        images: (N, 3, H, W) in [0, 1].
        generator: for each picture's edge threshold, line width and fading.

    Returns:
        (N, 3, H, W) in [0, 1].
    """
    count = len(images)
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    across = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]).abs()
    down = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]).abs()
    edges = (across.square() + down.square()).sqrt().amax(dim=1, keepdim=True)
    thick = torch.rand((count, 1, 1, 1), generator=generator, device=images.device) < 0.3
    edges = torch.where(thick, F.max_pool2d(edges, 3, stride=1, padding=1), edges)
    threshold = uniform((count, 1, 1, 1), 0.15, 0.45, generator)
    ink = torch.sigmoid((edges - threshold) * 20)
    fade = uniform((count, 1, 1, 1), 0.0, 0.5, generator)
    faded = images + (1 - images) * fade
    return faded * (1 - ink)


def random_affine(images: Tensor, generator: torch.Generator) -> Tensor:
    """Random rotation (±12°), scale (0.8 to 1.15) and shift (±8 %) on a white background."""
    count = len(images)
    angle = uniform((count,), -math.pi / 15, math.pi / 15, generator)
    zoom = 1 / uniform((count,), 0.8, 1.15, generator)
    shift = uniform((count, 2), -0.16, 0.16, generator)  # in units of half the picture
    cos, sin = zoom * torch.cos(angle), zoom * torch.sin(angle)
    return _resample(images, cos, sin, shift, images.shape[-1])


def place(images: Tensor, generator: torch.Generator, size_px: int = 64) -> Tensor:
    """Scale pictures to 65 to 100 %, rotate by up to ±6° and place at random on a white ``size_px`` canvas.

    Resampled at twice the size, then halved, for smooth edges.
    """
    count = len(images)
    angle = uniform((count,), -math.pi / 30, math.pi / 30, generator)
    share = uniform((count,), 0.65, 1.0, generator)
    shift = uniform((count, 2), -1, 1, generator) * (1 - share)[:, None]  # in halves of the canvas
    cos, sin = torch.cos(angle) / share, torch.sin(angle) / share
    across = -(cos * shift[:, 0] - sin * shift[:, 1])
    down = -(sin * shift[:, 0] + cos * shift[:, 1])
    drawn = _resample(images, cos, sin, torch.stack([across, down], dim=1), 2 * size_px)
    return F.avg_pool2d(drawn, 2).clamp(0, 1)


def _resample(images: Tensor, cos: Tensor, sin: Tensor, shift: Tensor, size_px: int) -> Tensor:
    """Affine resampling to (N, 3, size_px, size_px); white outside the picture.

    The arguments map output to input coordinates, as in `torch.nn.functional.affine_grid`.

    Args:
        images: (N, 3, H, W) in [0, 1].
        cos: cosine of the angle times the zoom; (N,).
        sin: sine of the angle times the zoom; (N,).
        shift: (N, 2), horizontal and vertical, in units of half the picture.
        size_px: edge of the result.
    """
    matrix = torch.stack([cos, -sin, shift[:, 0], sin, cos, shift[:, 1]], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(matrix, [len(images), 3, size_px, size_px], align_corners=False)
    return 1 - F.grid_sample(1 - images, grid, align_corners=False)


def recolour(images: Tensor, generator: torch.Generator) -> Tensor:
    """Random gain per channel (±12 %), saturation and gamma; white stays nearly white."""
    count = len(images)
    gain = uniform((count, 3, 1, 1), 0.88, 1.12, generator)
    saturation = uniform((count, 1, 1, 1), 0.6, 1.3, generator)
    gamma = uniform((count, 1, 1, 1), 0.75, 1.35, generator)
    grey = images.mean(dim=1, keepdim=True)
    varied = (grey + (images - grey) * saturation) * gain
    return varied.clamp(0, 1).pow(gamma)


def swap_channels(images: Tensor, generator: torch.Generator) -> Tensor:
    """Permute red, green and blue in half of the pictures, to show colours that no emoji set uses."""
    count, channels, height, width = images.shape
    keys = torch.rand((count, channels), generator=generator, device=images.device)
    order = keys.argsort(dim=1)[:, :, None, None].expand(-1, -1, height, width)
    kept = torch.rand((count, 1, 1, 1), generator=generator, device=images.device) < 0.5
    return torch.where(kept, images, images.gather(1, order))


def coarsen(images: Tensor, generator: torch.Generator, size_px: int = 64) -> Tensor:
    """Downscale half of the pictures (N, 3, H, W) to ``size_px`` and enlarge them again."""
    small = F.interpolate(images, size=(size_px, size_px), mode="bicubic", antialias=True)
    blurred = F.interpolate(small, size=images.shape[-2:], mode="bicubic").clamp(0, 1)
    kept = torch.rand((len(images), 1, 1, 1), generator=generator, device=images.device) < 0.5
    return torch.where(kept, images, blurred)


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Augment (N, 3, H, W) in [0, 1]: outline half of the pictures, then move and recolour all."""
    lined = torch.rand((len(images), 1, 1, 1), generator=generator, device=images.device) < 0.5
    drawn = torch.where(lined, outline(images, generator), images)
    return recolour(random_affine(drawn, generator), generator)
