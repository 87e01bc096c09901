"""The work folder of the starter models: pictures, tokenizer and the checkpoint of each stage."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.run.files import sha256_of
from curate.run.schema import UserError
from workflows.starter import checkpoint
from workflows.starter.recipe import RECIPES
from workflows.starter.tokenizer import load_tokenizer

if TYPE_CHECKING:
    import torch

    from workflows.starter.emoji_sets import Pictures
    from workflows.starter.loop import Task
    from workflows.starter.meaning import Distillation

PICTURE_SIZE_PX = 64


class WorkFolder:
    """The work folder: pictures, tokenizer, and the models trained so far.

    Attributes:
        inputs: sha256 of each file read so far, by name; the next checkpoint records them.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.folder = folder
        self.device = device
        self.tokenizer = load_tokenizer(folder / "tokenizer")
        self.inputs: dict[str, str] = {}
        # Cached: stages share input files.
        self._sha256 = cache(lambda name: sha256_of(folder / name))

    def pictures(self, size_px: int = PICTURE_SIZE_PX) -> tuple[Pictures, Pictures]:
        """Training pictures and OpenMoji's; rendered on the first call."""
        from workflows.starter.emoji_sets import cache_name, load_pictures

        loaded = load_pictures(self.folder, size_px)
        self._use(cache_name("train", size_px))
        return loaded

    def distillation(self) -> Distillation:
        """The distillation of words and seen concepts' names; embeddings are computed on the first call."""
        from workflows.starter.meaning import Distillation
        from workflows.starter.pretrained import EMBEDDINGS_FILE, load_text_embeddings

        pictures, _ = self.pictures()
        names = pictures.select(pictures.seen()).names()
        found = load_text_embeddings(names, self.folder)
        self._use(EMBEDDINGS_FILE)
        return Distillation(found, self.tokenizer, self.device)

    def train(self, stage: str, make_task: Callable[[], Task]) -> None:
        """Train a stage to its end, resuming if it was interrupted; a finished stage is not trained again.

        Raises:
            UserError: the stage's checkpoint was trained with another recipe or from other files.
        """
        from workflows.starter.loop import train

        path, recipe = self.folder / stage / checkpoint.NAME, RECIPES[stage]
        if path.exists() and checkpoint.is_finished(path, recipe):
            self._check(stage)
            print(f"{stage}: already trained")
            return
        task = make_task()  # adds to self.inputs
        train(task, recipe, path.parent, self.inputs)

    def trained(self, stage: str, build: Callable[[], Any]) -> Any:
        """The averaged weights of a finished stage, for inference.

        Raises:
            UserError: the stage is not finished, its recipe has changed, or one of its input files has.
        """
        self._check(stage)
        name = f"{stage}/{checkpoint.NAME}"
        model = build()
        model.load_state_dict(checkpoint.ema_weights(self.folder / name))
        self._use(name)
        return model.eval().requires_grad_(False).to(self.device)

    def trained_clip(self) -> Any:
        """The CLIP without the layer that only training needs."""
        from workflows.starter.architecture import build_student

        clip = self.trained("image", build_student)
        del clip.probe
        return clip

    def _use(self, name: str) -> None:
        # Not self._sha256: the file may just have been written.
        self.inputs[name] = sha256_of(self.folder / name)

    def _check(self, stage: str) -> None:
        """Raise a `UserError` unless a stage is finished and its remaining input files are unchanged."""
        path = self.folder / stage / checkpoint.NAME
        again = f"python -m workflows.starter {stage} --work-dir {self.folder}"
        if not path.exists():
            raise UserError(f"{path} is missing; run `{again}` first")
        metadata, recipe = checkpoint.read_metadata(path), RECIPES[stage]
        checkpoint.check_recipe(path, recipe)
        if metadata.step < recipe.steps:
            raise UserError(
                f"{path} is at step {metadata.step} of {recipe.steps}; run `{again}` first"
            )
        present = [name for name in metadata.inputs if (self.folder / name).exists()]
        now = {name: self._sha256(name) for name in present}
        checkpoint.check_inputs(path, metadata.inputs | now)
        for name in present:
            if name.endswith(checkpoint.NAME):
                self._check(name.partition("/")[0])
