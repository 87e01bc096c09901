"""A contact sheet of common prompts, one sample each: `python -m workflows.starter.sheet FILE [--lora FOLDER]`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.run.cli import exit_codes
from workflows.starter.export import LDM_FOLDER

if TYPE_CHECKING:
    from PIL.Image import Image

COMMON = (
    *("red heart", "grinning face", "dog face", "cat face", "pig face", "cow face", "panda"),
    *("frog", "lion", "monkey face", "bear", "turtle", "octopus", "red apple", "lemon"),
    *("strawberry", "watermelon", "carrot", "mushroom", "pizza", "hamburger", "doughnut"),
    *("ice cream", "hot beverage", "beer mug", "sun", "crescent moon", "star", "rainbow", "cloud"),
    *("snowflake", "deciduous tree", "evergreen tree", "cactus", "rose", "sunflower", "tulip"),
    *("house", "automobile", "bus", "helicopter", "rocket", "airplane", "sailboat"),
    *("soccer ball", "umbrella", "key", "crown", "alarm clock", "candle"),
)  # concepts that the U-Net was trained on, in the style of one set
UNSEEN = (
    *("banana", "birthday cake", "fire", "fish", "bicycle"),
    *("basketball", "balloon", "baseball", "grapes", "penguin"),
)  # held-out concepts
COLUMNS = 10
LABEL_PX = 14
SCALE = 2  # enlargement
GUIDANCE_SCALE = 3.0


def load_pipeline(lora: Path | None = None, folder: Path = LDM_FOLDER) -> Any:
    """Load the built-in pipeline with DPM-Solver++, through the public API of diffusers.

    Args:
        lora: folder of an exported LoRA to load.
        folder: the pipeline's folder.
    """
    import torch
    from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

    pipeline: Any = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    if lora is not None:
        pipeline.load_lora_weights(lora)
    return pipeline


def draw(pipeline: Any, prompts: tuple[str, ...], steps: int = 20) -> list[Image]:
    """One sample for each prompt, seeded by its position in ``prompts``."""
    import torch

    images: list[Image] = []
    for start in range(0, len(prompts), COLUMNS):
        some = prompts[start : start + COLUMNS]
        generators = [torch.Generator().manual_seed(start + n) for n in range(len(some))]
        images += pipeline(
            list(some),
            num_inference_steps=steps,
            guidance_scale=GUIDANCE_SCALE,
            generator=generators,
        ).images
    return images


def lay_out(images: list[Image], labels: tuple[str, ...]) -> Image:
    """A sheet of the images, enlarged, in rows of ten, each with its label below."""
    from PIL import Image, ImageDraw, ImageFont

    width, height = (side * SCALE for side in images[0].size)
    rows = -(-len(images) // COLUMNS)
    sheet = Image.new("RGB", (width * COLUMNS, (height + LABEL_PX) * rows), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(LABEL_PX - 4)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        left, top = width * (number % COLUMNS), (height + LABEL_PX) * (number // COLUMNS)
        sheet.paste(image.resize((width, height), Image.Resampling.LANCZOS), (left, top))
        pen.text((left + width / 2, top + height), label, "black", font, anchor="ma")
    return sheet


def main(arguments: list[str] | None = None) -> None:
    """Draw the sheet and save it to the file named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m workflows.starter.sheet", description=__doc__)
    parser.add_argument("file", type=Path, help="the sheet to write, a png or webp")
    parser.add_argument("--lora", type=Path, help="folder of an exported LoRA")
    chosen = parser.parse_args(arguments)
    prompts = COMMON + UNSEEN
    lay_out(draw(load_pipeline(chosen.lora), prompts), prompts).save(chosen.file)


if __name__ == "__main__":
    with exit_codes():
        main()
