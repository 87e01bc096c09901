"""Before training: whether enough pictures are held out, and trained on, for a judgement."""

from __future__ import annotations

from collections.abc import Collection

from curate.decide.config import HELD_OUT, SIDES, SMALLEST_JUDGED
from curate.decide.enough import too_few
from curate.run.finished import is_of_retraining
from curate.run.manifest import Manifest
from curate.run.schema import UserError
from finetune import start
from finetune.config import TrainConfig
from finetune.rules import FEWEST_TO_STOP
from finetune.sidecars import GROUP, read_columns


def examine(config: TrainConfig, manifest: Manifest, seen: Collection[str]) -> None:
    """Say that no judgement can follow from so few groups, before hours of training; refuse where there is none at all.

    With fewer than ``SMALLEST_JUDGED`` groups of held-out or of training pictures the verdict is inconclusive, and
    what the default gate requires is not measured. One group alone has no interval, so no loss says anything.

    Args:
        config: of the training.
        manifest: of its data.
        seen: keys that no held-out loss counts, see ``seen_before``.

    Raises:
        UserError: a held-out loss is asked for, and there is one group to measure it on, or none.
    """
    groups = {side: _groups(config, manifest, side, seen) for side in SIDES}
    val, train = len(groups["val"]), len(groups["train"])
    if min(val, train) >= SMALLEST_JUDGED or (not val and not config.heldout.items):
        return
    again = "and curate again under another run.name"
    if is_of_retraining(config.run.folder):
        again = "and type the same python -m workflows.retrain again"
    section = "curate." if is_of_retraining(config.run.folder) else ""
    what = too_few(val, sum(map(len, groups.values())), section) or (
        f"to train on: {train} groups of images, but python -m evaluate needs {SMALLEST_JUDGED} for a verdict; add images"
    )
    if val < FEWEST_TO_STOP and config.heldout.items:
        raise UserError(
            f"{what}, {again}. From one group alone nothing can be judged; to train without a held-out loss, type "
            "heldout.items=0"
        )
    start.say(
        f"warning: {what}, {again}. Trained on these, the verdict can only be inconclusive and the default gate "
        "undecided, so that no retraining promotes it"
    )


def _groups(config: TrainConfig, manifest: Manifest, side: str, seen: Collection[str]) -> set[str]:
    """The duplicate groups of a side; a picture without one is its own."""
    found: set[str] = set()
    left_out = set(seen) if side in HELD_OUT else set()
    for shard in manifest.shards_of(side):
        table = read_columns(config.curate_dir, shard, ("key", GROUP))
        keys = table["key"].to_pylist()
        named = table[GROUP].to_pylist() if GROUP in table.column_names else [None] * len(keys)
        found |= {
            group or key for key, group in zip(keys, named, strict=True) if key not in left_out
        }
    return found
