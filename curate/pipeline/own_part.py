"""One part of a data set, ``part=i/n``: what it decides alone, and that it has a run of its own."""

from __future__ import annotations

import re
import shlex

from curate.pipeline.config import CurateConfig
from curate.readers.config import DatasetConfig
from curate.run import provenance
from curate.run.schema import UserError


def note(dataset: DatasetConfig) -> list[str]:
    """What is decided within the part alone; nothing for a whole data set."""
    if dataset.shard is None:
        return []
    return [
        f"part={dataset.shard} is a part with verdicts of its own: copies are searched, the cut is "
        "calibrated and val and test are held out within it alone. A picture may be kept here and its "
        "copy in another part, on another side of the split"
    ]


def check(config: CurateConfig) -> None:
    """Refuse a second part under one run, whose shards it would replace.

    Raises:
        UserError: the run holds another part; says which, and what to type.
    """
    shard, curate_dir = config.dataset.shard, config.run.folder / "curate"
    before = provenance.read_config(curate_dir / "config.yaml").get("dataset")
    there = before.get("shard") if isinstance(before, dict) else None
    if shard is None or there in (None, shard):
        return
    raise UserError(
        f"{config.run.folder} holds part {there} of its data set, which part={shard} would replace: "
        f"each part needs a run of its own; type {shlex.quote(f'run.name={_name(config.run.folder.name, shard)}')}"
    )


def _name(run: str, shard: str) -> str:
    """``coco-1-of-8`` for part 1/8 of ``coco`` or of ``coco-0-of-8``."""
    whole = re.sub(r"-\d+-of-\d+$", "", run)
    return f"{whole}-{shard.replace('/', '-of-')}"


def prefix(dataset: DatasetConfig) -> str:
    """What the names of this part's shards begin with, so that no two parts write the same: ``03-of-16-``."""
    if dataset.shard is None:
        return ""
    number, count = dataset.shard.split("/")
    return f"{number.zfill(len(count))}-of-{count}-"
