"""The configuration group ``model``: which pipeline to start from, and at what resolution."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from curate.run.schema import PATH, UserError, check, register
from finetune.prediction_types import PREDICTION_TYPES

CHUNK = 75  # tokens that CLIP reads beside two marks
CAPTION_TOKENS = (CHUNK, 2 * CHUNK, 3 * CHUNK)
BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
BETAS = ("beta_schedule", "beta_start", "beta_end")  # keys
_WITHOUT_ENDS = "squaredcos_cap_v2"
PACKAGES = Path(__file__).resolve().parents[2]  # the folder that holds finetune/


@dataclass
class ModelConfig:
    """The latent diffusion pipeline to start from.

    Attributes:
        path: a folder in diffusers' layout, a ``.safetensors`` file in the original layout of Stable Diffusion 1, 2
            or XL, or a repository of the Hugging Face hub. A relative folder is looked up in the working directory,
            then beside the packages.
        config: of a single file, a folder in diffusers' layout whose settings are taken; null takes the published
            ones.
        revision: of the hub repository; null takes its default branch.
        variant: of the weight files, such as ``fp16``.
        resolution: side in pixels of the squares that the pictures are resized and cropped to; with aspect buckets
            the area of none exceeds that of the square.
        prediction_type: what the U-Net predicts; null takes what its scheduler says.
        clip_skip: which layer of a text encoder the U-Net reads, counted from the one that its pipeline takes, which is
            1; 2 is the layer before, of Stable Diffusion 1 as in kohya's trainers and web interfaces. diffusers counts
            the layers that are left out: its ``clip_skip`` is one less. The pipelines of Stable Diffusion 2 and SDXL
            take the layer before the last already, so that there 2 is the third from the end, which ComfyUI calls -3,
            Forge for SDXL 3, and kohya's trainers, which ignore the setting for SDXL, do not have.
        caption_tokens: how much of a caption is read, in chunks of 75 tokens (of as many as the tokenizer says, where
            that is another number), see ``finetune.models.chunks``; kohya's ``max_token_length``.
        beta_schedule: of the noise levels, as diffusers' schedulers name it. beta_start, beta_end: of ``linear`` and
            ``scaled_linear``, its first and last beta. null takes what the pipeline's scheduler says.
    """

    path: str = field(default=MISSING, metadata=PATH)
    revision: str | None = None
    variant: str | None = None
    resolution: int = MISSING
    prediction_type: str | None = None
    config: str | None = field(default=None, metadata=PATH)
    clip_skip: int = 1
    caption_tokens: int = CHUNK
    beta_schedule: str | None = None
    beta_start: float | None = None
    beta_end: float | None = None

    def __post_init__(self) -> None:
        size, kind = self.resolution, self.prediction_type
        check(size > 0 and size % 8 == 0, "model.resolution", size, "a multiple of 8, > 0")
        check(
            kind is None or kind in PREDICTION_TYPES,
            "model.prediction_type",
            kind,
            f"null, {', '.join(PREDICTION_TYPES)}",
        )
        check(self.clip_skip >= 1, "model.clip_skip", self.clip_skip, "1, the last layer, or more")
        known = self.caption_tokens in CAPTION_TOKENS
        accepted = ", ".join(map(str, CAPTION_TOKENS))
        check(known, "model.caption_tokens", self.caption_tokens, accepted)
        self._check_betas()

    def _check_betas(self) -> None:
        name = self.beta_schedule
        known = name is None or name in BETA_SCHEDULES
        check(known, "model.beta_schedule", name, f"null, {', '.join(BETA_SCHEDULES)}")
        for key in ("beta_start", "beta_end"):
            value = getattr(self, key)
            check(value is None or 0 < value < 1, f"model.{key}", value, "null or 0 < beta < 1")
            if value is not None and name == _WITHOUT_ENDS:
                raise UserError(
                    f"model.{key}={value:g} has no effect with model.beta_schedule={name}, which has no ends to choose; "
                    "remove it"
                )
        start, end = self.beta_start, self.beta_end
        if start is not None and end is not None and start >= end:
            raise UserError(
                f"model.beta_start={start:g} is not below model.beta_end={end:g}; noise grows from step to step"
            )

    @property
    def betas(self) -> dict[str, Any]:
        """Those of ``beta_schedule``, ``beta_start`` and ``beta_end`` that are set."""
        return {name: value for name in BETAS if (value := getattr(self, name)) is not None}

    @property
    def chunks(self) -> int:
        """In which a caption is read."""
        return self.caption_tokens // CHUNK

    def single_file(self) -> Path | None:
        """The file that ``path`` names; None where it names none.

        Raises:
            UserError: it is no safetensors file, or there are settings for a file and there is none.
        """
        path = Path(self.path).expanduser()
        if not path.is_file():
            if self.config is not None:
                raise UserError(
                    f"model.config={self.config} is for a single file, and model.path={self.path} is none; remove "
                    "model.config"
                )
            return None
        if path.suffix != ".safetensors":
            raise UserError(
                f"model.path={self.path} is no .safetensors file; other checkpoints are programs, which are not run "
                "here. Get the model as .safetensors, or as a folder in diffusers' layout"
            )
        return path

    def location(self) -> str:
        """Where to load from: the file or folder, if ``path`` names one, else the hub repository's name.

        Raises:
            UserError: ``path`` is neither a file, a folder nor of the form ``owner/name``.
        """
        if file := self.single_file():
            return str(file)
        for folder in (Path(self.path).expanduser(), PACKAGES / self.path):
            if (folder / "model_index.json").is_file():
                return str(folder)
            if folder.is_dir():
                raise UserError(
                    f"model.path={self.path} is a folder without model_index.json; it must be a "
                    "pipeline in diffusers' layout. Type model=starter for the built-in one"
                )
        if self.path.count("/") != 1 or self.path.startswith((".", "/", "~")):
            raise UserError(
                f"model.path={self.path} does not exist; give a folder in diffusers' layout or a "
                "hub repository such as stable-diffusion-v1-5/stable-diffusion-v1-5, or a .safetensors file"
            )
        return self.path

    def not_loaded(self, error: Exception) -> UserError:
        """What to raise when diffusers does not find or cannot read the pipeline's files."""
        return UserError(
            f"model.path={self.path} could not be loaded: {error}. Without access to the hub, "
            "download the pipeline elsewhere and type model.path=FOLDER, or model=starter"
        )


register(ModelConfig, "model", "model")
