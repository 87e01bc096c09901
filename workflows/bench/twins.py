"""Edited copies of pictures under the same or another wording: the twins that a split has to keep together."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from curate.pack.sample import Sample, read_shard
from curate.run.manifest import read_manifest

if TYPE_CHECKING:
    from PIL.Image import Image

EACH = 150  # twins of each kind
PLAN = "twins.json"


def plant(curate_dir: Path, target: Path, seed: int) -> None:
    """Write the kept pictures of a curation and their twins as a folder of pictures with captions.

    Beside them ``twins.json`` has the pairs, ``{kind: [[key, key of the twin], ...]}``.

    Args:
        curate_dir: of the curation.
        target: the folder; the pictures go into ``pictures`` below it.
        seed: of the choice and the edits.
    """
    samples = _samples(curate_dir)
    folder = target / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    for sample in samples:
        _write(folder, sample.key, _opened(sample), sample.caption)
    rng = np.random.default_rng(seed)
    order, plan = rng.permutation(len(samples)), {}
    for number, (kind, edit) in enumerate(_EDITS.items()):
        plan[kind] = []
        for place in order[number * EACH : (number + 1) * EACH]:
            sample, twin = samples[place], f"{kind}-{samples[place].key}"
            edited = len(plan[kind]) % 2
            caption = _reworded(sample.caption, rng) if edited else sample.caption
            _write(folder, twin, edit(_opened(sample), rng), caption)
            plan[kind].append([sample.key, twin])
    (target / PLAN).write_text(json.dumps(plan), encoding="utf-8")


def apart(target: Path, curate_dir: Path) -> dict[str, float]:
    """By kind, the share of planted pairs of which a curation has one picture in train and one held out.

    Args:
        target: as in :func:`plant`. curate_dir: of the curation of its folder.
    """
    plan = json.loads((target / PLAN).read_text(encoding="utf-8"))
    split = {
        sample.key: info.split
        for info in read_manifest(curate_dir).shards
        for sample in read_shard(curate_dir / info.path)
    }
    found = {}
    for kind, pairs in plan.items():
        sides = [
            {split[key] for key in pair} for pair in pairs if all(key in split for key in pair)
        ]
        found[kind] = sum(len(each) == 2 and "train" in each for each in sides) / len(sides)
    return found


def _samples(curate_dir: Path) -> list[Sample]:
    shards = read_manifest(curate_dir).shards
    found = [sample for info in shards for sample in read_shard(curate_dir / info.path)]
    return sorted(found, key=lambda sample: sample.key)


def _opened(sample: Sample) -> Image:
    from PIL import Image

    with Image.open(io.BytesIO(sample.image)) as picture:
        return picture.convert("RGB")


def _write(folder: Path, key: str, picture: Image, caption: str) -> None:
    picture.save(folder / f"{key}.png")
    (folder / f"{key}.txt").write_text(caption + "\n", encoding="utf-8")


def _cropped(picture: Image, rng: np.random.Generator) -> Image:
    """78 to 92 % of the width and height, back to the full size."""
    width, height = picture.size
    share = rng.uniform(0.78, 0.92)
    w, h = int(width * share), int(height * share)
    x, y = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
    return picture.crop((x, y, x + w, y + h)).resize(picture.size)


def _rotated(picture: Image, rng: np.random.Generator) -> Image:
    """By 5 to 15 degrees."""
    from PIL.Image import Resampling

    angle = rng.uniform(5, 15) * rng.choice([-1, 1])
    return picture.rotate(angle, Resampling.BICUBIC, fillcolor="white")


def _shifted(picture: Image, rng: np.random.Generator) -> Image:
    """By 6 to 14 % of the width and of the height."""
    from PIL import Image

    moved = [int(side * rng.uniform(0.06, 0.14) * rng.choice([-1, 1])) for side in picture.size]
    found = Image.new("RGB", picture.size, "white")
    found.paste(picture, (moved[0], moved[1]))
    return found


_EDITS: dict[str, Callable[[Image, np.random.Generator], Image]] = {
    "cropped": _cropped,
    "rotated": _rotated,
    "shifted": _shifted,
}


def _reworded(caption: str, rng: np.random.Generator) -> str:
    words = caption.split()
    shorter = " ".join(words[:-1]) if len(words) > 2 else f"new {caption}"
    choices = (f"a picture of {caption}", f"{caption} icon", " ".join([*words[::-1], "2"]), shorter)
    return choices[rng.integers(len(choices))]
