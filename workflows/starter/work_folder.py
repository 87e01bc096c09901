"""The work folder of the starter models, and what of it the next stage stands on."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.run.cli import UserError
from curate.run.files import sha256_of
from workflows.starter import checkpoint
from workflows.starter.recipe import RECIPES
from workflows.starter.tokenizer import load_tokenizer

if TYPE_CHECKING:
    import torch

    from workflows.starter.emoji_sets import Pictures
    from workflows.starter.loop import Task
    from workflows.starter.meaning import Lesson

PICTURE_SIZE_PX = 64


class Workshop:
    """The work folder: pictures, tokenizer, and the models trained so far.

    Attributes:
        used: sha256 of each file that has been read from it, by name; what is trained next stands on them.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.folder = folder
        self.device = device
        self.tokenizer = load_tokenizer(folder / "tokenizer")
        self.used: dict[str, str] = {}
        # Stages share what they stand on.
        self._sha256 = cache(lambda name: sha256_of(folder / name))

    def pictures(self, size_px: int = PICTURE_SIZE_PX) -> tuple[Pictures, Pictures]:
        """Training pictures and OpenMoji's, rendered on the first call."""
        from workflows.starter.emoji_sets import cache_name, load_pictures

        loaded = load_pictures(self.folder, size_px)
        self._use(cache_name("train", size_px))
        return loaded

    def lesson(self) -> Lesson:
        """What words and the names of the seen concepts mean; computed on the first call."""
        from workflows.starter.meaning import Lesson
        from workflows.starter.pretrained import MEANINGS, meanings

        pictures, _ = self.pictures()
        names = pictures.select(pictures.seen()).names()
        found = meanings(names, self.folder)
        self._use(MEANINGS)
        return Lesson(found, self.tokenizer, self.device)

    def train(self, stage: str, make_task: Callable[[], Task]) -> None:
        """Train a stage to its end, or go on where it was cut; a finished one stays as it is.

        Raises:
            UserError: what there is of the stage was made by another recipe or from other files.
        """
        from workflows.starter.loop import train

        path, recipe = self.folder / stage / checkpoint.NAME, RECIPES[stage]
        if path.exists() and checkpoint.is_finished(path, recipe):
            self._check(stage)
            print(f"{stage}: trained already")
            return
        task = make_task()  # notes what it is made from
        train(task, recipe, path.parent, self.used)

    def trained(self, stage: str, build: Callable[[], Any]) -> Any:
        """The averaged weights of a finished stage, for inference.

        Raises:
            UserError: the stage has not come to its end, or it was trained by another recipe than there
                is now, or what it stands on has changed since.
        """
        self._check(stage)
        name = f"{stage}/{checkpoint.NAME}"
        model = build()
        model.load_state_dict(checkpoint.average(self.folder / name))
        self._use(name)
        return model.eval().requires_grad_(False).to(self.device)

    def trained_clip(self) -> Any:
        """The CLIP without what only its training needs."""
        from workflows.starter.architecture import build_student

        clip = self.trained("image", build_student)
        del clip.probe
        return clip

    def _use(self, name: str) -> None:
        self.used[name] = sha256_of(self.folder / name)  # it may just have been written

    def _check(self, stage: str) -> None:
        """That a stage is finished and that what is still here of what it stands on is as it was."""
        path = self.folder / stage / checkpoint.NAME
        again = f"python -m workflows.starter {stage} --work-dir {self.folder}"
        if not path.exists():
            raise UserError(f"{path} is missing; run `{again}` first")
        told, recipe = checkpoint.told(path), RECIPES[stage]
        checkpoint.check_recipe(path, recipe)
        if told.step < recipe.steps:
            raise UserError(f"{path} is at step {told.step} of {recipe.steps}; run `{again}` first")
        present = [name for name in told.made_from if (self.folder / name).exists()]
        now = {name: self._sha256(name) for name in present}
        checkpoint.check_same(path, told.made_from | now)
        for name in present:
            if name.endswith(checkpoint.NAME):
                self._check(name.partition("/")[0])
