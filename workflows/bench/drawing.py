"""Pictures per second that the built-in pipeline draws, by sampler, against its U-Net's passes alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from workflows.bench.compare import Ways, compare

PICTURES = 16
STEPS = 20
SAMPLERS = ("DPMSolverMultistepScheduler", "DDIMScheduler", "DDPMScheduler")


def run() -> None:
    """Print rates and ratios; guidance makes each step a pass over twice as many latents."""
    import diffusers

    from workflows.starter.sheet import COMMON, GUIDANCE_SCALE, load_pipeline

    pipeline = load_pipeline()
    prompts = list(COMMON[:PICTURES])

    def drawing(name: str) -> list[Any]:
        pipeline.scheduler = getattr(diffusers, name).from_config(pipeline.scheduler.config)
        return pipeline(prompts, num_inference_steps=STEPS, guidance_scale=GUIDANCE_SCALE).images

    passes = _passes(pipeline, len(prompts))
    ways: Ways = {name: lambda name=name: drawing(name) for name in SAMPLERS}
    passes(1)  # warms up
    compare(
        f"drawing {PICTURES} pictures in {STEPS} steps with guidance",
        ways | {"the U-Net's passes alone": lambda: passes(STEPS)},
        PICTURES,
        "images",
    )


def _passes(pipeline: Any, pictures: int) -> Callable[[int], None]:
    """What makes a number of passes on latents, timestep and captions of the pipeline's shapes, with guidance."""
    unet = pipeline.unet
    size, width = unet.config.sample_size, unet.config.cross_attention_dim
    latents = torch.randn(2 * pictures, unet.config.in_channels, size, size)
    text = torch.randn(2 * pictures, pipeline.tokenizer.model_max_length, width)

    @torch.inference_mode()
    def passes(steps: int) -> None:
        for step in range(steps):
            unet(latents, step, encoder_hidden_states=text)

    return passes
