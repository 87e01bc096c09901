"""Pictures of the same prompts at every evaluation of a training, to look at while it runs.

They are drawn from the weights that would be exported, from the same noise each time, into
``samples/step-00002400/``; ``samples/all.png`` has a row for each prompt and a column for each evaluation, and where
there are many prompts ``samples/all-2.png`` has the next rows. No verdict stands on them: ``python -m evaluate`` draws
its own.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from curate.run import checksums
from curate.run.files import atomic_write
from curate.run.tracking import Point
from finetune.at_once import pictures_at_once
from finetune.config import SamplesConfig
from finetune.drawing import contact_sheet
from finetune.drawing.config import SamplerConfig
from finetune.drawing.sampling import Prompt, Sampler, mark_of
from finetune.models.interface import LatentDiffusion

FOLDER, SHEET = "samples", "all"
_SAMPLER = "dpm_solver++"
_MOST_AT_ONCE = 4


class Samples:
    """Draws, keeps and lists the pictures of a training.

    Args:
        folder: of the training.
        model: what draws; its U-Net is handed in for each evaluation.
        config: how to draw.
        captions: of the first held-out pictures.
        controls: [N, C, H, W] uint8, what a ControlNet draws these from; None: nothing. Other prompts have none.
    """

    def __init__(
        self,
        folder: Path,
        model: LatentDiffusion,
        config: SamplesConfig,
        captions: Sequence[str],
        controls: Tensor | None = None,
    ) -> None:
        self.folder = folder / FOLDER
        self._model, self._config = model, config
        chosen = {
            **{f"held-out-{n}": text for n, text in enumerate(captions[: config.captions], 1)},
            **{f"prompt-{n}": text for n, text in enumerate(config.prompts, 1)},
        }
        drawn_from = dict(
            zip(chosen, () if controls is None else controls[: len(captions)], strict=False)
        )
        self.prompts = [
            Prompt(key, text, control=drawn_from.get(key)) for key, text in chosen.items()
        ]

    def draw(
        self,
        step: int,
        identity: Callable[[int], Any],
        unet: nn.Module,
        go_on: Callable[[], bool],
    ) -> None:
        """Draw what is missing of an evaluation.

        Args:
            step: updates so far.
            identity: of the training up to an update, JSON values; pictures of another one are drawn again.
            unet: with the weights to draw from.
            go_on: asked before each few pictures; False leaves the rest out.
        """
        if not self.prompts:
            return
        at_once = min(_MOST_AT_ONCE, pictures_at_once(self._model.resolution))
        config = SamplerConfig(_SAMPLER, self._config.steps, self._config.guidance_scale)
        sampler = Sampler(self._model, config, self._config.seed, at_once)
        training, made = unet.training, self._made(step)
        unet.eval()
        with checksums.updated(self.folder.parent, self._written(made)):
            for start in range(0, len(self.prompts), at_once):
                if not go_on():
                    break
                part = self.prompts[start : start + at_once]
                sampler.draw_missing(made, part, _weights(identity, step), lambda: unet)
            self._list(sampler, identity)
        unet.train(training)

    @staticmethod
    def _written(made: Path) -> tuple[str, ...]:
        """How the paths of what an evaluation writes begin."""
        return f"{FOLDER}/{made.name}/", f"{FOLDER}/{SHEET}"

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

    def _list(self, sampler: Sampler, identity: Callable[[int], Any]) -> None:
        """Write the sheets of all evaluations that have all pictures, of these prompts and settings."""
        names = [f"{prompt.key}.png" for prompt in self.prompts]
        steps = [
            path
            for path in sorted(self.folder.glob("step-*"))
            if all(
                mark_of(path / f"{prompt.key}.png")
                == sampler.fingerprint(prompt, _weights(identity, _step_of(path)))
                for prompt in self.prompts
            )
        ]
        if not steps:
            return
        cells = [[step / name for step in steps] for name in names]
        labels = [prompt.caption for prompt in self.prompts]
        columns = [f"update {n}" if (n := _step_of(step)) else "base" for step in steps]
        sheets = contact_sheet.sheets(cells, labels, columns, "pictures while training")
        for number, sheet in enumerate(sheets, 1):
            with atomic_write(self.folder / f"{SHEET}{f'-{number}' * (number > 1)}.png") as file:
                sheet.save(file, "PNG")


def _weights(identity: Callable[[int], Any], step: int) -> str:
    """What stands for the weights at an update: everything that they depend on."""
    return json.dumps([identity(step), step], sort_keys=True)


def points(folder: Path) -> list[Point]:
    """Update and pictures of every evaluation of the training in a folder, for trackers."""
    return [_point(path) for path in sorted((folder / FOLDER).glob("step-*"))]


def _point(made: Path) -> Point:
    files = {f"{FOLDER}/{path.stem}": path for path in sorted(made.glob("*.png"))}
    return _step_of(made), files


def _step_of(made: Path) -> int:
    return int(made.name.removeprefix("step-"))
