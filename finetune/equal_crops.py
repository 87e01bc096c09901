"""Before training: whether several crops of a picture can differ at all."""

from __future__ import annotations

import numpy as np

from curate.run.manifest import Manifest
from curate.run.schema import UserError
from finetune.buckets import movable, targets
from finetune.config import TrainConfig
from finetune.sidecars import sizes_of


def examine(config: TrainConfig, manifest: Manifest) -> None:
    """Refuse ``data.crops`` where every picture has the shape of what is cut out.

    Raises:
        UserError: so it is; or a table does not know the pictures' sizes.
    """
    if config.data.crops == 1:
        return
    side = config.model.resolution
    buckets = config.buckets.sides(side) or ((side, side),)
    for shard in manifest.shards_of("train"):
        sizes = np.array(list(sizes_of(config.curate_dir, shard).values()), np.int64).reshape(-1, 2)
        if movable(sizes.T, targets(sizes.T, buckets)).any():
            return
    raise UserError(
        f"data.crops={config.data.crops} has no effect: every picture has the shape of what is cut out, so that all "
        "crops are the same; remove it"
    )
