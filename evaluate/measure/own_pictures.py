"""Draws and encodes the pictures that copying is measured on, and looks at checkpoints one by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image

from curate.decide.config import SMALLEST_JUDGED
from curate.run.companions import CONTROL
from curate.run.files import atomic_write
from evaluate.measure.blank import is_flat
from evaluate.measure_config import MeasureConfig
from evaluate.metrics import copying
from evaluate.metrics.copying import Found, NearestSearch, Side
from evaluate.results import BASE_KEPT, CopiedPair, CopyingLook, CopyingResult, Metric
from finetune.cache import EncodedSplit
from finetune.crop import to_square
from finetune.drawing.latents import encode
from finetune.drawing.picture import read_picture
from finetune.drawing.sampling import Prompt
from finetune.heldout import choose
from finetune.latents import of_one_shape
from finetune.opened_run import FinetuneRun

SPLITS = ("train", "val")
MOST_SEARCHED = (
    20_000  # training pictures in which the nearest is looked for; those of 512 px take 1.3 GB
)
_BLOCK = 1000  # of them in memory at once
_CANDIDATES = 8  # looked at for each caption wanted, since only one of a group is taken


@dataclass(frozen=True, slots=True)
class Look:
    """What was found at one checkpoint.

    Attributes:
        sides: the pictures by split, blank ones left out. blank: how many captions that leaves out.
    """

    step: int
    sides: dict[str, Side]
    blank: int
    found: Found


class Judged(Protocol):
    """What is needed of the run that is judged, see ``evaluate.evaluation.Evaluation``."""

    config: MeasureConfig
    run: FinetuneRun
    device: torch.device
    folder: Path

    @property
    def steps(self) -> tuple[int, ...]:
        """Of each row."""
        ...

    def groups_of(self, keys: Sequence[str], split: str = "val") -> list[str]:
        """The duplicate groups of keys in a split."""
        ...

    def draw(
        self, row: int, prompts: Sequence[Prompt], again: int = 0, subfolder: str = ""
    ) -> list[Path]:
        """Pictures by the checkpoint of a row."""
        ...

    def training_pictures(self, keys: Set[str]) -> Iterator[tuple[str, Image.Image]]:
        """Some pictures of the split ``train`` with their keys."""
        ...


class NotMeasured(Exception):
    """Why copying is not measured at a checkpoint."""


class OwnPictures:
    """Pictures for captions of ``train`` and of ``val``, one of each duplicate group."""

    def __init__(self, evaluation: Judged) -> None:
        self.evaluation = evaluation
        self.looks: dict[int, Look | NotMeasured] = {}  # by row

    def vetoed(self, row: int) -> str | None:
        """Why the checkpoint of a row must not be kept; None if nothing speaks against it."""
        look = self.look(row)
        if isinstance(look, NotMeasured) or not look.found.copies:
            return None
        return copying.reason(look.found, look.step)

    def look(self, row: int) -> Look | NotMeasured:
        """What is found at the checkpoint of a row, measured once."""
        if row not in self.looks:
            try:
                self.looks[row] = self._look(row)
            except NotMeasured as error:
                self.looks[row] = error
        return self.looks[row]

    @cached_property
    def _splits(self) -> dict[str, EncodedSplit]:
        run, device = self.evaluation.run, self.evaluation.device
        return {s: run.encoded(s, device, squares=True) for s in SPLITS}  # as pictures are drawn

    @cached_property
    def chosen(self) -> dict[str, list[int]]:
        """Indices in each split of the captions that are drawn, by hashed key, one of each group."""
        wanted = self.evaluation.config.copying.pictures
        found = {}
        for name, split in self._splits.items():
            candidates = choose(split, _CANDIDATES * wanted).tolist()
            groups = self.evaluation.groups_of([split.keys[i] for i in candidates], name)
            first = dict(zip(reversed(groups), reversed(candidates), strict=True))
            found[name] = [first[group] for group in dict.fromkeys(groups)][:wanted]
        fewest = min(map(len, found.values()))
        return {name: rows[:fewest] for name, rows in found.items()}

    def prompts(self, split: str) -> list[Prompt]:
        """What is drawn for a split."""
        encoded = self._splits[split]
        rows = self.chosen[split]
        entry = encoded.entries.get(CONTROL)
        controls = [None] * len(rows) if entry is None else entry.take(*_plain(rows))
        return [
            Prompt(encoded.keys[i], encoded.captions[i], control=control)
            for i, control in zip(rows, controls, strict=True)
        ]

    def paths(self, split: str, row: int) -> list[Path]:
        """The pictures of a split that the checkpoint of a row drew; those that are missing are drawn now."""
        return self.evaluation.draw(
            row, self.prompts(split), subfolder="train" if split == "train" else ""
        )

    @cached_property
    def _base(self) -> dict[str, np.ndarray]:
        return {split: self._latents(self.paths(split, 0)) for split in SPLITS}

    def _look(self, row: int) -> Look:
        if not self.evaluation.config.copying.pictures:
            raise NotMeasured("left out by copying.pictures=0")
        if row == 0:
            raise NotMeasured(f"{BASE_KEPT}, and copying is measured against it")
        _refuse_few(len(self.chosen["train"]), "captions in different groups on each side")
        sides, blank = {}, 0
        for split in SPLITS:
            encoded, indices = self._splits[split], self.chosen[split]
            keys = [encoded.keys[i] for i in indices]
            drawn = self.paths(split, row)
            fine = [
                i
                for i, pair in enumerate(zip(self.paths(split, 0), drawn, strict=True))
                if not any(is_flat(read_picture(path)) for path in pair)
            ]
            blank += len(keys) - len(fine)
            latents = of_one_shape(encoded.latents_of(torch.tensor(indices)))
            real = latents.flatten(1).numpy()
            groups = self.evaluation.groups_of(keys, split)
            side = Side(keys, groups, real, self._base[split], self._latents(drawn))
            sides[split] = side.take(fine)
        fewest = min(len(side.keys) for side in sides.values())
        _refuse_few(fewest, "captions whose pictures are not blank")
        equal = {split: side.take(range(fewest)) for split, side in sides.items()}
        step = self.evaluation.steps[row]
        try:
            return Look(step, equal, blank, copying.compare(equal["train"], equal["val"]))
        except ValueError as error:
            raise NotMeasured(str(error)) from error

    def _latents(self, paths: Sequence[Path]) -> np.ndarray:
        """[V, N, D] of stored pictures, encoded as the training pictures were: as they are, with ``data.flip`` mirrored too.

        A mirrored copy of a picture is as near to it, once mirrored back, as a copy.
        """
        model = self.evaluation.run.model(self.evaluation.device)
        views = (False, True) if self.evaluation.run.config.data.flip else (False,)
        found = [encode(model, paths, mirrored=mirrored) for mirrored in views]
        return torch.stack(found).flatten(2).numpy()

    # For the report

    def result(self) -> CopyingResult | None:
        """What ``report.json`` says about all looks so far; None where none could be made."""
        looks = {row: x for row, x in sorted(self.looks.items()) if isinstance(x, Look)}
        if not looks:
            return None
        copying_rows = [row for row, look in looks.items() if look.found.copies]
        shown = (copying_rows or list(looks))[-1]
        look = looks[shown]
        return CopyingResult(
            looks=tuple(map(_stored, looks.values())),
            step=look.step,
            train=tuple(look.found.train.tolist()),
            val=tuple(look.found.val.tolist()),
            searched=min(len(self._splits["train"]), MOST_SEARCHED),
            pairs=tuple(self._pairs(shown, look)),
        )

    def _pairs(self, row: int, look: Look) -> Iterator[CopiedPair]:
        side, folder = look.sides["train"], self.evaluation.folder
        searches = NearestSearch(side.base), NearestSearch(side.drawn)
        split = self._splits["train"]
        order = choose(split, MOST_SEARCHED)  # begins with the captions that were drawn
        for block in order.split(_BLOCK):
            keys = [split.keys[i] for i in block.tolist()]
            latents = of_one_shape(split.latents_of(block)).flatten(1).numpy()
            for search in searches:
                search.add(keys, latents)
        base, drawn = (search.nearest() for search in searches)
        suspicious = copying.most_suspicious(base, drawn)
        files = dict(
            zip((p.key for p in self.prompts("train")), self.paths("train", row), strict=True)
        )
        captions = dict(zip(split.keys, split.captions, strict=True))
        real = self._training_files({drawn.keys[i] for i in suspicious})
        for i in suspicious:
            key, nearest = side.keys[i], drawn.keys[i]
            yield CopiedPair(
                key=key,
                caption=captions[key],
                drawn=str(files[key].relative_to(folder)),
                nearest_key=nearest,
                nearest_caption=captions[nearest],
                nearest=str(real[nearest].relative_to(folder)),
                distance=float(drawn.distance[i] / look.found.unit),
                base_distance=float(base.distance[i] / look.found.unit),
            )

    def _training_files(self, keys: set[str]) -> dict[str, Path]:
        """Training pictures as the model was given them, stored under ``samples/training``."""
        folder = self.evaluation.folder / "samples" / "training"
        found = {}
        for key, picture in self.evaluation.training_pictures(keys):
            found[key] = folder / f"{key}.png"
            square = to_square(
                picture, self.evaluation.run.model(self.evaluation.device).resolution
            )
            with atomic_write(found[key]) as stream:
                square.save(stream, "PNG")
        return found


def _refuse_few(count: int, what: str) -> None:
    if count < SMALLEST_JUDGED:
        raise NotMeasured(f"{count} {what}; at least {SMALLEST_JUDGED} needed")


def _stored(look: Look) -> CopyingLook:
    found = look.found
    shares = [*found.own_train.mean(1), *found.own_val.mean(1)]
    return CopyingLook(
        step=look.step,
        difference=Metric.of(found.difference, "train less val"),
        own_train_base=float(shares[0]),
        own_train=float(shares[1]),
        own_val_base=float(shares[2]),
        own_val=float(shares[3]),
        blank=look.blank,
        copies=found.copies,
    )


def _plain(rows: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a split, in the plain view, as its entries are taken."""
    return np.array(rows, np.int64), np.zeros(len(rows), np.int64)
