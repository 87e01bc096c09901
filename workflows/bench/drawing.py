"""Images per second of the built-in pipeline, by scheduler, compared with its U-Net alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from workflows.bench.compare import Variants, compare

PICTURES = 16
STEPS = 20
SCHEDULERS = ("DPMSolverMultistepScheduler", "DDIMScheduler", "DDPMScheduler")


def run() -> None:
    """Print rates and ratios."""
    import diffusers

    from workflows.starter.sheet import COMMON, GUIDANCE_SCALE, load_pipeline

    pipeline = load_pipeline()
    prompts = list(COMMON[:PICTURES])

    def drawing(name: str) -> list[Any]:
        pipeline.scheduler = getattr(diffusers, name).from_config(pipeline.scheduler.config)
        return pipeline(prompts, num_inference_steps=STEPS, guidance_scale=GUIDANCE_SCALE).images

    passes = _passes(pipeline, len(prompts))
    variants: Variants = {name: lambda name=name: drawing(name) for name in SCHEDULERS}
    passes(1)  # warms up
    compare(
        f"drawing {PICTURES} pictures in {STEPS} steps with guidance",
        variants | {"the U-Net alone": lambda: passes(STEPS)},
        PICTURES,
        "images",
    )


def _passes(pipeline: Any, pictures: int) -> Callable[[int], None]:
    """A function that runs the U-Net for some steps on random input of the pipeline's shapes.

    Classifier-free guidance doubles the batch.
    """
    unet = pipeline.unet
    size, width = unet.config.sample_size, unet.config.cross_attention_dim
    latents = torch.randn(2 * pictures, unet.config.in_channels, size, size)
    text = torch.randn(2 * pictures, pipeline.tokenizer.model_max_length, width)

    @torch.inference_mode()
    def passes(steps: int) -> None:
        for step in range(steps):
            unet(latents, step, encoder_hidden_states=text)

    return passes
