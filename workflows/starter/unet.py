"""The starter U-Net: denoises 16x16 latents of emoji, conditioned on the CLIP's text tower."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from curate.run.schema import UserError
from finetune.conditioning import Conditioning
from finetune.models import sd
from finetune.objective import NoiseSchedule, denoising_loss
from workflows.starter.emoji_batches import CaptionSampler, as_floats, place
from workflows.starter.emoji_sets import Pictures
from workflows.starter.recipe import RECIPES
from workflows.starter.text import hidden_states
from workflows.starter.vae import LATENT_CHANNELS

RECIPE, PLACED_RECIPE = RECIPES["unet"], RECIPES["placed"]
PLACEMENTS = 6
CAPTION_DROPOUT = 0.1
TONED_WEIGHT = 0.5  # low: few concepts have skin tones, and the tones are learned quickly
# One set only: captions do not name the style, so with four sets each caption would have four targets,
# which a model of this size would blend.
SET = "twemoji"
EVAL_DRAWS, FINAL_EVAL_DRAWS = 128, 1280  # at each checkpoint; in the `measure` stage
EVAL_BATCH_SIZE = 64
LATENT_SIZE = 16
SCHEDULER: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,  # as in latent diffusion (Rombach et al. 2022)
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "clip_sample": False,
    "timestep_spacing": "trailing",
    "steps_offset": 1,
}
CONFIG: dict[str, Any] = {
    "sample_size": LATENT_SIZE,
    "in_channels": LATENT_CHANNELS,
    "out_channels": LATENT_CHANNELS,
    # A caption is one concept: cross-attention at the lowest resolution is enough, and 1.5 times as fast.
    "block_out_channels": (48, 96, 192),
    "down_block_types": ("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "cross_attention_dim": 192,
    # The pooled caption is also added to the timestep embedding and so reaches every level: after 400
    # steps the caption's effect on the loss at high noise was more than twice as large.
    "addition_embed_type": "text",
    "addition_embed_type_num_heads": 4,
    "attention_head_dim": 6,  # diffusers takes this as the number of heads, 32 wide each
    "norm_num_groups": 16,
}


def build_unet() -> nn.Module:
    """A randomly initialised UNet2DConditionModel of the starter's architecture."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(**CONFIG)


def build_schedule() -> NoiseSchedule:
    """The noise schedule of ``SCHEDULER``."""
    from diffusers import DDPMScheduler

    return NoiseSchedule.from_scheduler(DDPMScheduler(**SCHEDULER))


@torch.inference_mode()
def encode_latents(
    vae: Any, pictures: Pictures, transform: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Unscaled latent means (N, 16, 16, 16) of the pictures.

    ``transform`` turns pictures (N, 3, H, W) that are not 64 px into 64 px ones.
    """
    device = next(vae.parameters()).device
    found = []
    for part in np.array_split(pictures.images, max(1, len(pictures) // 64)):
        images = as_floats(part, device)
        images = images if transform is None else transform(images)
        found.append(vae.encode(images * 2 - 1).latent_dist.mean.cpu())
    return torch.cat(found)


def latent_scale(vae: Any, pictures: Pictures) -> float:
    """The VAE's scaling factor: 1 / standard deviation of the latents of every eighth training picture."""
    return float(1 / encode_latents(vae, pictures.select(pictures.seen().nonzero()[0][::8])).std())


class HeldOut:
    """Pictures of unseen concepts, each with a fixed noise and timestep, by rising noise level."""

    def __init__(
        self,
        pictures: Pictures,
        encoders: tuple[Any, Any, Any],
        scaling_factor: float,
        count: int,
        device: torch.device,
    ) -> None:
        """``encoders`` are VAE, text encoder and tokenizer.

        ``count`` draws of noise and timestep are spread evenly over the pictures; a picture is used
        several times if there are fewer than ``count``.
        """
        vae, text_encoder, tokenizer = encoders
        unseen = pictures.select(pictures.unseen())
        chosen = unseen.select(np.linspace(0, len(unseen) - 1, count).astype(int))
        generator = torch.Generator().manual_seed(RECIPE.seed)
        self.device = device
        self.schedule = build_schedule().to(device)
        self.latents = encode_latents(vae, chosen) * scaling_factor
        self.text = hidden_states(text_encoder, tokenizer, [str(name) for name in chosen.captions])
        self.toned = torch.from_numpy(chosen.toned())
        self.noise = torch.randn(self.latents.shape, generator=generator)
        # Shuffle: pictures are sorted by code point, and one noise level would be all faces.
        order = torch.randperm(count, generator=generator)
        self.latents, self.text = self.latents[order], self.text[order]
        self.toned = self.toned[order]
        self.timesteps = torch.linspace(0, len(self.schedule) - 1, count).long()

    @torch.inference_mode()
    def losses(self, model: Any) -> Tensor:
        """Denoising loss of each draw, (count,), by rising noise level."""
        conditioning = Conditioning({"hidden": self.text})
        everything = (self.latents, self.noise, self.timesteps, conditioning)
        parts = zip(*(values.split(EVAL_BATCH_SIZE) for values in everything), strict=True)
        predict = partial(sd.predict, model)
        return torch.cat(
            [
                denoising_loss(predict, self.schedule, *(v.to(self.device) for v in part)).cpu()
                for part in parts
            ]
        )


class UnetTask:
    """Denoise cached latents, conditioned on cached text embeddings."""

    recipe = RECIPE

    def __init__(
        self, pictures: Pictures, vae: Any, text_encoder: Any, tokenizer: Any, device: torch.device
    ) -> None:
        torch.manual_seed(self.recipe.seed)
        self.model: Any = build_unet().to(device)
        self.device = device
        self.schedule = build_schedule().to(device)
        self.scaling_factor = latent_scale(vae, pictures)
        pictures = pictures.select(pictures.sets == SET)
        seen = pictures.select(pictures.seen())
        self.latents = encode_latents(vae, seen) * self.scaling_factor
        self.sampler = CaptionSampler(seen, TONED_WEIGHT)
        captions, self.caption_of = np.unique(seen.captions, return_inverse=True)
        self.text = hidden_states(text_encoder, tokenizer, [str(caption) for caption in captions])
        self.no_caption = hidden_states(text_encoder, tokenizer, [""])
        encoders = (vae, text_encoder, tokenizer)
        self.heldout = HeldOut(pictures, encoders, self.scaling_factor, EVAL_DRAWS, device)

    def parameter_groups(self) -> list[dict]:
        """Matrices with weight decay, vectors without."""
        weights = list(self.model.parameters())
        return [
            {"params": [p for p in weights if p.ndim > 1]},
            {"params": [p for p in weights if p.ndim <= 1], "weight_decay": 0.0},
        ]

    def loss(self, generator: torch.Generator) -> Tensor:
        """Mean denoising loss of a batch; timesteps are stratified over the batch."""
        rows = self.sampler.draw(self.recipe.batch_size, generator)
        latents = self.draw_latents(rows, generator).to(self.device)
        text = self.text[self.caption_of[rows.numpy()]].to(self.device)
        dropped = torch.rand((len(rows), 1, 1), generator=generator, device=self.device)
        text = torch.where(dropped < CAPTION_DROPOUT, self.no_caption.to(self.device), text)
        offset = torch.rand(1, generator=generator, device=self.device)
        places = torch.arange(len(rows), device=self.device) + offset
        timesteps = (places / len(rows) * len(self.schedule)).long()
        timesteps = timesteps.clamp_max(len(self.schedule) - 1)  # rounding may reach len
        noise = torch.randn(latents.shape, generator=generator, device=self.device)
        conditioning = Conditioning({"hidden": text})
        predict = partial(sd.predict, self.model)
        return denoising_loss(
            predict, self.schedule, latents, noise, timesteps, conditioning
        ).mean()

    def draw_latents(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Latents of the pictures at ``rows``."""
        return self.latents[rows]

    def measure(self, model: Any) -> dict[str, float]:
        """Mean loss on pictures of unseen concepts: overall and by thirds of the noise levels."""
        losses = self.heldout.losses(model)
        thirds = zip(("low", "middle", "high"), losses.tensor_split(3), strict=True)
        return {"heldout": float(losses.mean())} | {
            f"heldout_{name}_noise": float(part.mean()) for name, part in thirds
        }


class PlacedUnetTask(UnetTask):
    """Continue from a trained U-Net, with each picture in several positions and sizes."""

    recipe = PLACED_RECIPE

    def __init__(self, unet: Any, large: Pictures, pictures: Pictures, *encoders: Any) -> None:
        """``large`` are the same pictures at more than 64 px, so that scaling them does not blur.

        Raises:
            UserError: the two show different pictures.
        """
        if not np.array_equal(large.captions, pictures.captions):
            raise UserError(
                "the work folder's train-64px.npz and train-96px.npz show different pictures; install the "
                "versions that constraints.txt names and delete the one that was rendered with other versions"
            )
        super().__init__(pictures, *encoders)
        self.model = unet.to(self.device)
        vae = encoders[0]
        large = large.select(large.sets == SET)
        large = large.select(large.seen())
        generator = torch.Generator(self.device).manual_seed(self.recipe.seed)
        moved = [
            encode_latents(vae, large, partial(place, generator=generator))
            for _ in range(PLACEMENTS)
        ]
        self.latents = torch.stack([self.latents, *(some * self.scaling_factor for some in moved)])

    def draw_latents(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Latents of the pictures at ``rows``, each in one of its placements."""
        places = torch.randint(
            len(self.latents), (len(rows),), generator=generator, device=self.device
        )
        return self.latents[places.cpu(), rows]


def unet_metrics(pictures: Pictures, folder: Path, device: torch.device) -> dict[str, float]:
    """Loss of the pipeline in ``folder`` on pictures of unseen concepts, and their number.

    The loss is over all, over those without skin tones, and over all by tenths of the noise levels.
    """
    from diffusers import StableDiffusionPipeline

    pipeline: Any = StableDiffusionPipeline.from_pretrained(folder).to(device)
    vae = pipeline.vae
    encoders = (vae, pipeline.text_encoder, pipeline.tokenizer)
    chosen = pictures.select(pictures.sets == SET)
    heldout = HeldOut(chosen, encoders, vae.config.scaling_factor, FINAL_EVAL_DRAWS, device)
    losses = heldout.losses(pipeline.unet.eval())
    tenths = enumerate(losses.tensor_split(10))
    return {
        "unseen_pictures": int(chosen.unseen().sum()),
        "loss_unseen": float(losses.mean()),
        "loss_unseen_plain": float(losses[~heldout.toned].mean()),
    } | {f"loss_unseen_noise_{tenth}": float(part.mean()) for tenth, part in tenths}
