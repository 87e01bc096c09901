"""Pictures for captions, stored as PNG; each depends on its caption, key and seed alone.

Every picture has its own generator, on the CPU: batch size, device and the other captions do not change
its noise, and base and checkpoints start from the same noise.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_euler_ancestral_discrete import EulerAncestralDiscreteScheduler
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor, nn

from curate.run.files import atomic_write
from curate.run.progress import Bar
from curate.run.schema import UserError
from finetune import precision as precisions
from finetune.data import keyed_seed
from finetune.drawing.config import SamplerConfig
from finetune.models.controlled import drawing_from
from finetune.models.interface import LatentDiffusion

# PNG text chunks: what made the picture, and what its pixels are.
FINGERPRINT, PIXELS = "darkroom-fingerprint", "darkroom-pixels-sha256"

SCHEDULERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "dpm_solver++": (
        DPMSolverMultistepScheduler,
        {"algorithm_type": "dpmsolver++", "solver_order": 2},
    ),
    "unipc": (UniPCMultistepScheduler, {"solver_order": 2}),
    "euler": (EulerDiscreteScheduler, {}),
    "euler_ancestral": (EulerAncestralDiscreteScheduler, {}),
    "ddim": (DDIMScheduler, {"clip_sample": False}),
    "ddpm": (DDPMScheduler, {"clip_sample": False}),
}


def refuse(config: SamplerConfig, model: LatentDiffusion) -> None:
    """Refuse a solver, or its noise levels, that diffusers does not sample this model with.

    Raises:
        UserError: says what to type.
    """
    if config.name == "euler_ancestral" and model.schedule.prediction_type == "sample":
        raise UserError(
            "sampler=euler_ancestral does not work with this model, whose prediction_type is sample; type "
            "sampler=euler, or another one"
        )
    if config.timestep_spacing == "leading" and model.zero_terminal_snr:
        raise UserError(
            "sampler.timestep_spacing=leading does not begin at the last noise level, from which this model, trained with "
            "objective.zero_terminal_snr, draws; type sampler.timestep_spacing=trailing"
        )


@dataclass(frozen=True, slots=True)
class Prompt:
    """A caption to draw.

    Attributes:
        key: its file's name is derived from it.
        seed: of the noise, as torch counts; None derives the noise from the sampler's seed and the key.
        negative: what the guidance leads away from.
        control: [1 or 3, H, W] uint8, what a ControlNet draws from, of the picture's size; None: nothing.
    """

    key: str
    caption: str
    seed: int | None = None
    negative: str = ""
    control: Tensor | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Frame:
    """What all pictures of a sampler have in common, beside the solver.

    Attributes:
        width, height: in pixels; None is the model's resolution.
        clip_skip: which layer of the text encoder counts, from the one that the pipeline takes, which is 1; None is the
            one that the model was trained with.
        start: the picture to start from, of that size; None starts from noise.
        strength: the share of the noise that the start gets.
    """

    width: int | None = None
    height: int | None = None
    clip_skip: int | None = None
    start: Image.Image | None = None
    strength: float = 1.0

    def described(self) -> list[Any]:
        """The same as JSON values, for a fingerprint."""
        start = None if self.start is None else pixels_sha256(self.start)
        return [self.width, self.height, self.clip_skip, start, self.strength if start else None]


class Sampler:
    """Draws and stores pictures of one model; stored ones are not drawn again."""

    def __init__(
        self,
        model: LatentDiffusion,
        config: SamplerConfig,
        seed: int,
        batch_size: int,
        frame: Frame | None = None,
        precision: str = "no",
    ) -> None:
        self.model, self.config, self.seed, self.batch_size = model, config, seed, batch_size
        self.precision = precision
        self._whole = Frame(clip_skip=model.clip_skip)
        frame = frame or self._whole
        self.frame = replace(frame, clip_skip=frame.clip_skip or model.clip_skip)
        refuse(config, model)
        kind, options = SCHEDULERS[config.name]
        self.scheduler = kind.from_config(
            model.scheduler.config,
            prediction_type=model.schedule.prediction_type,
            timestep_spacing=config.timestep_spacing,
            **options,
        )
        self._base = model.fingerprint()

    def generator(self, prompt: Prompt) -> torch.Generator:
        """The noise of one picture."""
        seed = prompt.seed
        if seed is None:
            seed = keyed_seed(self.seed, "picture", prompt.key)
        return torch.Generator("cpu").manual_seed(seed)

    def draw(self, unet: nn.Module, prompts: Sequence[Prompt]) -> list[Image.Image]:
        """One picture for each prompt; one that is not finite comes out black.

        The metric ``flat_pictures`` counts black ones.
        """
        drawn: dict[int, Image.Image] = {}
        for has in (True, False):  # a ControlNet's part is called for all of a batch, or for none
            places = [i for i, prompt in enumerate(prompts) if (prompt.control is not None) == has]
            if places:
                drawn |= zip(places, self._draw(unet, [prompts[i] for i in places]), strict=True)
        return [drawn[place] for place in range(len(prompts))]

    def _draw(self, unet: nn.Module, prompts: Sequence[Prompt]) -> list[Image.Image]:
        """Those of prompts that all have a condition, or all have none."""
        frame = self.frame
        if frame.start is None:
            pipeline: Any = self.model.pipeline(unet)
            side = self.model.resolution
            placed = {"width": frame.width or side, "height": frame.height or side}
        else:
            pipeline = self.model.picture_pipeline(unet)
            placed = {"image": [frame.start] * len(prompts), "strength": frame.strength}
        pipeline.scheduler = self.scheduler
        pipeline.set_progress_bar_config(disable=True)
        arguments = self.model.prompt_arguments(
            [prompt.caption for prompt in prompts],
            [prompt.negative for prompt in prompts],
            frame.clip_skip,
        )
        controls = [prompt.control for prompt in prompts if prompt.control is not None]
        with (
            precisions.computing_in(self.precision, unet),
            drawing_from(unet, torch.stack(controls) if controls else None),
        ):
            pixels: Any = pipeline(
                **arguments,
                **placed,
                num_inference_steps=self.config.steps,
                guidance_scale=self.config.guidance_scale,
                generator=[self.generator(prompt) for prompt in prompts],
                output_type="np",
            ).images
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
        missing = [i for i, path in enumerate(paths) if mark_of(path) != marks[i]]
        network = unet() if missing else None
        with Bar(total=len(missing), unit="picture", desc=folder.name, disable=not missing) as bar:
            for start in range(0, len(missing), self.batch_size):
                batch = missing[start : start + self.batch_size]
                assert network is not None
                for i, picture in zip(
                    batch, self.draw(network, [prompts[i] for i in batch]), strict=True
                ):
                    write(picture, paths[i], marks[i])
                bar.update(len(batch))
        return paths

    def fingerprint(self, prompt: Prompt, weights: str) -> str:
        """Changes with everything that the picture depends on."""
        known = [self._base, weights, asdict(self.config), self.seed, prompt.key, prompt.caption]
        if prompt.seed is not None:  # it alone says what the noise is
            known[3:5] = [prompt.seed]
        if prompt.negative:
            known.append({"negative": prompt.negative})
        if prompt.control is not None:
            content = prompt.control.contiguous().numpy().tobytes()
            known.append({"control": hashlib.sha256(content).hexdigest()})
        if self.frame != self._whole:
            known.append(self.frame.described())
        if said := precisions.mark(self.precision):
            known.append(said)
        return hashlib.blake2b(json.dumps(known).encode(), digest_size=16).hexdigest()


def _picture(array: np.ndarray) -> Image.Image:
    """[H, W, 3] in [0, 1] to 8 bits; black where the model's output is not finite."""
    if not np.isfinite(array).all():
        return Image.new("RGB", (array.shape[1], array.shape[0]))
    return Image.fromarray((array * 255).round().astype(np.uint8))


def write(
    picture: Image.Image, path: Path, mark: str, texts: Mapping[str, str] | None = None
) -> None:
    """Store a picture as PNG, with its fingerprint and other texts in it, atomically."""
    info, stream = PngInfo(), io.BytesIO()
    for name, text in (texts or {}).items():
        info.add_text(name, text)
    info.add_text(FINGERPRINT, mark)
    info.add_text(PIXELS, pixels_sha256(picture))
    picture.save(stream, "PNG", pnginfo=info)
    with atomic_write(path) as file:
        file.write(stream.getvalue())


def texts_of(path: Path) -> dict[str, str]:
    """The texts in a stored picture; none, and a line, if it is damaged; none if it is not there."""
    if not path.is_file():
        return {}
    try:
        with Image.open(path) as picture:
            said = picture.info.get(PIXELS)  # earlier releases wrote none
            if said in (None, pixels_sha256(picture)):
                return {str(n): text for n, text in picture.info.items() if isinstance(text, str)}
    except (OSError, SyntaxError, ValueError) as error:
        if getattr(error, "errno", None) is not None:
            raise
    Bar.write(f"{path} is damaged; drawn again")
    return {}


def mark_of(path: Path) -> str | None:
    """The fingerprint of a stored picture; None if it is damaged or not there."""
    return texts_of(path).get(FINGERPRINT)


def pixels_sha256(picture: Image.Image) -> str:
    """Hex SHA-256 of mode, size and pixels."""
    known = f"{picture.mode} {picture.size} ".encode() + picture.tobytes()
    return hashlib.sha256(known).hexdigest()
