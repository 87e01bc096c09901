"""Pictures for captions, stored as PNG; each depends on its caption, key and seed alone.

Every picture has its own generator, on the CPU: batch size, device and the other captions do not change
its noise, and base and checkpoints start from the same noise.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.utils import logging as diffusers_logging
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import nn
from tqdm import tqdm

from curate.run.files import atomic_write
from evaluate.measure_config import SamplerConfig
from finetune.data import keyed_seed
from finetune.models.interface import LatentDiffusion

# PNG text chunks: what made the picture, and what its pixels are.
FINGERPRINT, PIXELS = "darkroom-fingerprint", "darkroom-pixels-sha256"

SCHEDULERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "dpm_solver++": (
        DPMSolverMultistepScheduler,
        {"algorithm_type": "dpmsolver++", "solver_order": 2},
    ),
    "ddim": (DDIMScheduler, {"clip_sample": False}),
    "ddpm": (DDPMScheduler, {"clip_sample": False}),
}


@dataclass(frozen=True, slots=True)
class Prompt:
    """A caption to draw, and the key that its noise and its file's name are derived from."""

    key: str
    caption: str


class Sampler:
    """Draws and stores pictures of one model; stored ones are not drawn again."""

    def __init__(
        self, model: LatentDiffusion, config: SamplerConfig, seed: int, batch_size: int
    ) -> None:
        self.model, self.config, self.seed, self.batch_size = model, config, seed, batch_size
        kind, options = SCHEDULERS[config.name]
        self.scheduler = kind.from_config(
            model.scheduler.config,
            prediction_type=model.schedule.prediction_type,
            timestep_spacing=config.timestep_spacing,
            **options,
        )
        self._base = model.fingerprint()

    def generator(self, key: str) -> torch.Generator:
        """The noise of one picture."""
        return torch.Generator("cpu").manual_seed(keyed_seed(self.seed, "picture", key))

    def draw(self, unet: nn.Module, prompts: Sequence[Prompt]) -> list[Image.Image]:
        """One picture for each prompt; one that is not finite comes out black.

        The metric ``flat_pictures`` counts black ones.
        """
        pipeline = self.model.pipeline(unet)
        pipeline.scheduler = self.scheduler
        pipeline.set_progress_bar_config(disable=True)
        verbosity = diffusers_logging.get_verbosity()
        diffusers_logging.set_verbosity_error()  # it prints every caption that is too long, for every batch
        pixels: Any = pipeline(
            [prompt.caption for prompt in prompts],
            height=self.model.resolution,
            width=self.model.resolution,
            num_inference_steps=self.config.steps,
            guidance_scale=self.config.guidance_scale,
            generator=[self.generator(prompt.key) for prompt in prompts],
            output_type="np",
        ).images  # type: ignore[union-attr]
        diffusers_logging.set_verbosity(verbosity)
        return [_picture(array) for array in pixels]

    def draw_missing(
        self,
        folder: Path,
        prompts: Sequence[Prompt],
        weights: str,
        unet: Callable[[], nn.Module],
    ) -> list[Path]:
        """Draw ``folder/<key>.png`` where it is missing or outdated, and return all paths in order.

        Args:
            folder: for the pictures of one set of weights.
            prompts: what to draw.
            weights: a hash of the weights, part of each picture's fingerprint.
            unet: builds the U-Net; called only when something is missing.
        """
        paths = [folder / f"{prompt.key}.png" for prompt in prompts]
        marks = [self.fingerprint(prompt, weights) for prompt in prompts]
        missing = [i for i, path in enumerate(paths) if _mark(path) != marks[i]]
        network = unet() if missing else None
        with tqdm(total=len(missing), unit="picture", desc=folder.name, disable=not missing) as bar:
            for start in range(0, len(missing), self.batch_size):
                batch = missing[start : start + self.batch_size]
                assert network is not None
                for i, picture in zip(
                    batch, self.draw(network, [prompts[i] for i in batch]), strict=True
                ):
                    _write(picture, paths[i], marks[i])
                bar.update(len(batch))
        return paths

    def fingerprint(self, prompt: Prompt, weights: str) -> str:
        """Changes with everything that the picture depends on."""
        known = [self._base, weights, asdict(self.config), self.seed, prompt.key, prompt.caption]
        return hashlib.blake2b(json.dumps(known).encode(), digest_size=16).hexdigest()


def _picture(array: np.ndarray) -> Image.Image:
    """[H, W, 3] in [0, 1] to 8 bits; black where the model's output is not finite."""
    if not np.isfinite(array).all():
        return Image.new("RGB", (array.shape[1], array.shape[0]))
    return Image.fromarray((array * 255).round().astype(np.uint8))


def _write(picture: Image.Image, path: Path, mark: str) -> None:
    info, stream = PngInfo(), io.BytesIO()
    info.add_text(FINGERPRINT, mark)
    info.add_text(PIXELS, _pixels_sha256(picture))
    picture.save(stream, "PNG", pnginfo=info)
    with atomic_write(path) as file:
        file.write(stream.getvalue())


def _mark(path: Path) -> str | None:
    """The fingerprint of a stored picture; None, and a line, if it is damaged."""
    if not path.is_file():
        return None
    try:
        with Image.open(path) as picture:
            said = picture.info.get(PIXELS)  # earlier releases wrote none
            if said in (None, _pixels_sha256(picture)):
                return picture.info.get(FINGERPRINT)
    except (OSError, SyntaxError, ValueError) as error:
        if getattr(error, "errno", None) is not None:
            raise
    tqdm.write(f"{path} is damaged; drawn again")
    return None


def _pixels_sha256(picture: Image.Image) -> str:
    known = f"{picture.mode} {picture.size} ".encode() + picture.tobytes()
    return hashlib.sha256(known).hexdigest()
