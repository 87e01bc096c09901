"""The starter VAE: 64 px pictures to 16x16 latents of 16 channels and back, in 0.7 M weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from workflows.starter.emoji_batches import CaptionSampler, as_floats, outline, swap_channels
from workflows.starter.emoji_sets import Pictures
from workflows.starter.recipe import RECIPES

RECIPE = RECIPES["vae"]
LATENT_CHANNELS = 16
KL_WEIGHT = 1e-4
EDGE_WEIGHT = 1.0
SQUARE_WEIGHT = 4.0
EVAL_STRIDE = 16  # every 16th OpenMoji picture is enough during training; all would slow it
CONFIG: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": LATENT_CHANNELS,
    "block_out_channels": (16, 32, 64),
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "mid_block_add_attention": False,
    "sample_size": 64,
}


def build_vae() -> nn.Module:
    """A randomly initialised AutoencoderKL of the starter's architecture."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(**CONFIG)


def reconstruction_loss(decoded: Tensor, images: Tensor) -> Tensor:
    """L1, L1 of pixel differences (edges) and squared error, weighted; images (N, 3, H, W) in [-1, 1]."""
    error = decoded - images
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return error.abs().mean() + EDGE_WEIGHT * edges + SQUARE_WEIGHT * error.square().mean()


def psnr_db(decoded: Tensor, images: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of each picture, (N,), in dB; both (N, 3, H, W) in [-1, 1]."""
    error = (decoded.clamp(-1, 1) - images).square().mean(dim=(1, 2, 3))
    return 10 * torch.log10(4 / error)


@torch.inference_mode()
def vae_metrics(model: Any, images: Tensor) -> dict[str, float]:
    """Mean PSNR of decoded latent means, and the latents' standard deviation; images (N, 3, H, W) in [-1, 1]."""
    code = torch.cat([model.encode(part).latent_dist.mean for part in images.split(64)])
    decoded = torch.cat([model.decode(part).sample for part in code.split(64)])
    return {
        "psnr_openmoji": float(psnr_db(decoded, images).mean()),
        "latent_std": float(code.std()),
    }


class VaeTask:
    """Reconstruct plain and outlined pictures from sampled latents."""

    def __init__(self, pictures: Pictures, openmoji: Pictures, device: torch.device) -> None:
        torch.manual_seed(RECIPE.seed)
        self.model: Any = build_vae().to(device)
        self.device = device
        seen = pictures.select(pictures.seen())
        self.images = torch.from_numpy(seen.images)
        self.sampler = CaptionSampler(seen)
        self.eval_images = as_floats(openmoji.images[::EVAL_STRIDE], device) * 2 - 1

    def parameter_groups(self) -> list[dict]:
        """One group with all weights."""
        return [{"params": list(self.model.parameters())}]

    def loss(self, generator: torch.Generator) -> Tensor:
        """Reconstruction loss plus a small KL divergence to the unit normal."""
        rows = self.sampler.draw(RECIPE.batch_size, generator)
        images = as_floats(self.images[rows], self.device)
        lined = torch.rand((len(rows), 1, 1, 1), generator=generator, device=self.device) < 0.5
        images = torch.where(lined, outline(images, generator), images)
        images = swap_channels(images, generator) * 2 - 1
        code = self.model.encode(images).latent_dist
        noise = torch.randn(code.mean.shape, generator=generator, device=self.device)
        decoded = self.model.decode(code.mean + code.std * noise).sample
        divergence = 0.5 * (code.mean.square() + code.var - 1 - code.logvar).mean()
        return reconstruction_loss(decoded, images) + KL_WEIGHT * divergence

    def measure(self, model: Any) -> dict[str, float]:
        """See `vae_metrics`."""
        return vae_metrics(model, self.eval_images)
