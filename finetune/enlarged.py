"""Before training with aspect buckets: pictures that have fewer pixels than their bucket, and are enlarged for it."""

from __future__ import annotations

import numpy as np

from curate.run.manifest import Manifest
from curate.run.schema import UserError
from finetune import start
from finetune.buckets import enlarged, shown, targets
from finetune.config import TrainConfig
from finetune.sidecars import sizes_of

_SIDES = ("train", "val")


def examine(config: TrainConfig, manifest: Manifest) -> None:
    """Say or refuse, as ``buckets.enlarge`` has it, that pictures are enlarged.

    Raises:
        UserError: ``buckets.enlarge=refuse`` and some are; or a table does not know the pictures' sizes.
    """
    buckets, reaction = config.buckets.sides(config.model.resolution), config.buckets.enlarge
    if not buckets or reaction == "allow":
        return
    found, total = [], 0
    for side in _SIDES[: 1 + bool(config.heldout.items)]:
        for shard in manifest.shards_of(side):
            sizes = sizes_of(config.curate_dir, shard)
            array = np.array(list(sizes.values()), np.int64).reshape(-1, 2).T
            wanted = targets(array, buckets)
            small = np.flatnonzero(enlarged(array, wanted)).tolist()
            keys = list(sizes)
            found += [(keys[place], array[::-1, place], wanted[:, place]) for place in small]
            total += len(sizes)
    if not found:
        return
    key, size, target = found[0]
    text = (
        f"{len(found):,} of {total:,} pictures ({len(found) / total:.1%}) have fewer pixels than their bucket and are "
        f"enlarged, such as {key} ({shown(tuple(size))} in a bucket of {shown(tuple(target))})"
    )
    if reaction == "refuse":
        raise UserError(
            f"{text}. Type a smaller model.resolution, or curate without them (filters.image.min_side_px), or, to "
            "enlarge them all the same, buckets.enlarge=warn"
        )
    start.say(
        f"warning: {text}; buckets.enlarge=refuse does not train then, buckets.enlarge=allow says nothing"
    )
