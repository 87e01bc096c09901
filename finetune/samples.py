"""Pictures of the same prompts at every evaluation of a training, to look at while it runs.

They are drawn from the weights that would be exported, from the same noise each time, into
``samples/step-00002400/``; ``samples/all.png`` has a row for each prompt and a column for each evaluation. No
verdict stands on them: ``python -m evaluate`` draws its own.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from curate.run.files import atomic_write
from curate.run.tracking import Point
from finetune.config import SamplesConfig
from finetune.drawing import contact_sheet
from finetune.drawing.config import SamplerConfig
from finetune.drawing.sampling import Prompt, Sampler
from finetune.models.interface import LatentDiffusion

FOLDER, SHEET = "samples", "all.png"
_SAMPLER = "dpm_solver++"
_AT_ONCE = 4


class Samples:
    """Draws, keeps and lists the pictures of a training.

    Args:
        folder: of the training.
        model: what draws; its U-Net is handed in for each evaluation.
        config: how to draw.
        captions: of the first held-out pictures.
    """

    def __init__(
        self, folder: Path, model: LatentDiffusion, config: SamplesConfig, captions: Sequence[str]
    ) -> None:
        self.folder = folder / FOLDER
        self._model, self._config = model, config
        chosen = {
            **{f"held-out-{n}": text for n, text in enumerate(captions[: config.captions], 1)},
            **{f"prompt-{n}": text for n, text in enumerate(config.prompts, 1)},
        }
        self.prompts = [Prompt(key, text) for key, text in chosen.items()]

    def draw(self, step: int, identity: Any, unet: nn.Module, go_on: Callable[[], bool]) -> None:
        """Draw what is missing of an evaluation.

        Args:
            step: updates so far.
            identity: of the training, JSON values; pictures of another one are drawn again.
            unet: with the weights to draw from.
            go_on: asked before each few pictures; False leaves the rest out.
        """
        made = self._made(step)
        weights = json.dumps([identity, step], sort_keys=True)
        training, sampler = unet.training, self._sampler()
        unet.eval()
        for start in range(0, len(self.prompts), _AT_ONCE):
            if not go_on():
                break
            part = self.prompts[start : start + _AT_ONCE]
            sampler.draw_missing(made, part, weights, lambda: unet)
        unet.train(training)
        self._list()

    def _sampler(self) -> Sampler:
        config = SamplerConfig(_SAMPLER, self._config.steps, self._config.guidance_scale)
        return Sampler(self._model, config, self._config.seed, _AT_ONCE)

    def point(self, step: int) -> Point:
        """Those of one evaluation; no pictures where none were drawn."""
        return _point(self._made(step))

    def _made(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    def cut(self, step: int) -> None:
        """Delete what was drawn after an update, which a resumed training does again."""
        for path in self.folder.glob("step-*"):
            if _step_of(path) > step:
                shutil.rmtree(path)

    def _list(self) -> None:
        """Write the sheet of all evaluations that have all pictures."""
        names = [f"{prompt.key}.png" for prompt in self.prompts]
        steps = [
            path
            for path in sorted(self.folder.glob("step-*"))
            if all((path / name).is_file() for name in names)
        ]
        if not steps:
            return
        cells = [[step / name for step in steps] for name in names]
        labels = [prompt.caption for prompt in self.prompts]
        columns = [f"update {n}" if (n := _step_of(step)) else "base" for step in steps]
        sheet = next(contact_sheet.sheets(cells, labels, columns, "pictures while training"))
        with atomic_write(self.folder / SHEET) as file:
            sheet.save(file, "PNG")


def points(folder: Path) -> list[Point]:
    """Update and pictures of every evaluation of the training in a folder, for trackers."""
    return [_point(path) for path in sorted((folder / FOLDER).glob("step-*"))]


def _point(made: Path) -> Point:
    files = {f"{FOLDER}/{path.stem}": path for path in sorted(made.glob("*.png"))}
    return _step_of(made), files


def _step_of(made: Path) -> int:
    return int(made.name.removeprefix("step-"))
