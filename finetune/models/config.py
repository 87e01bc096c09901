"""The configuration group ``model``: which pipeline to start from, and at what resolution."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path

from omegaconf import MISSING

from curate.run.schema import PATH, UserError, check, register
from finetune.prediction_types import PREDICTION_TYPES

PACKAGES = Path(__file__).resolve().parents[2]  # the folder that holds finetune/


@dataclass
class ModelConfig:
    """The latent diffusion pipeline to start from.

    Attributes:
        path: a folder in diffusers' layout, or a repository of the Hugging Face hub. A relative folder
            is looked up in the working directory, then beside the packages.
        revision: of the hub repository; null takes its default branch.
        variant: of the weight files, such as ``fp16``.
        resolution: side in pixels of the squares that the pictures are resized and cropped to.
        prediction_type: what the U-Net predicts; null takes what its scheduler says.
    """

    path: str = field(default=MISSING, metadata=PATH)
    revision: str | None = None
    variant: str | None = None
    resolution: int = MISSING
    prediction_type: str | None = None

    def __post_init__(self) -> None:
        size, kind = self.resolution, self.prediction_type
        check(size > 0 and size % 8 == 0, "model.resolution", size, "a multiple of 8, > 0")
        check(
            kind is None or kind in PREDICTION_TYPES,
            "model.prediction_type",
            kind,
            f"null, {', '.join(PREDICTION_TYPES)}",
        )

    def location(self) -> str:
        """Where to load from: the folder, if ``path`` names one, else the hub repository's name.

        Raises:
            UserError: ``path`` is neither a folder nor of the form ``owner/name``.
        """
        if Path(self.path).expanduser().is_file():
            raise self._is_a_file()
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
                "hub repository such as stable-diffusion-v1-5/stable-diffusion-v1-5"
            )
        return self.path

    def _is_a_file(self) -> UserError:
        """What to raise for a checkpoint in one file, as kohya's tools and web interfaces have them."""
        folder = Path(self.path).with_suffix("")
        return UserError(
            f"model.path={self.path} is a single file, and a pipeline is a folder in diffusers' layout. Convert it: "
            f"python -c 'from diffusers import StableDiffusionPipeline as P; "
            f'P.from_single_file("{self.path}").save_pretrained("{folder}")\'\n'
            f"and type {shlex.quote(f'model.path={folder}')}"
        )

    def not_loaded(self, error: Exception) -> UserError:
        """What to raise when diffusers does not find or cannot read the pipeline's files."""
        return UserError(
            f"model.path={self.path} could not be loaded: {error}. Without access to the hub, "
            "download the pipeline elsewhere and type model.path=FOLDER, or model=starter"
        )


register(ModelConfig, "model", "model")
