"""Captions of tags, separated by commas: in another order, and with some left out, each time a picture is seen.

Hidden states are cached, so each caption has so many variants, drawn once, and every visit of its picture takes one of
them. They depend on the caption and these settings alone: two runs share them, and more variants begin with the same.
What is held out, and all checks before training, read captions as they are written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from curate.run.joined import owner_of
from curate.run.manifest import Manifest, read_manifest
from curate.run.schema import UserError
from curate.run.tag_variants import Variants
from finetune.sidecars import captions_of

if TYPE_CHECKING:
    from finetune.config import TrainConfig


class TagVariants(Variants):
    """Those of a training."""

    __slots__ = ()

    @classmethod
    def of(cls, config: TrainConfig) -> TagVariants | None:
        """Those of a training; None where captions stay as they are written."""
        train = config.train
        if not (train.shuffle_caption or train.caption_tag_dropout):
            return None
        return cls(
            train.shuffle_caption, train.keep_tokens, train.caption_tag_dropout, train.tag_variants
        )


def texts_of(captions: Sequence[str], tags: TagVariants | None) -> Sequence[str]:
    """What is encoded of a sample's captions; see :meth:`TagVariants.texts`."""
    return captions if tags is None else tags.texts(captions)


def examine(config: TrainConfig, manifest: Manifest) -> None:
    """Refuse to vary captions that have too few tags for it.

    Raises:
        UserError: none of the training captions has enough.
    """
    if (tags := TagVariants.of(config)) is None:
        return
    for shard in manifest.shards_of("train"):
        if any(map(tags.changes, captions_of(config.curate_dir, shard))):
            return
    names = ("train.shuffle_caption", "train.caption_tag_dropout")
    needed = tags.keep + 1 + (tags.dropout == 0)
    raise UserError(
        f"{names[0] if tags.shuffle else names[1]} has no effect: no caption in {config.curate_dir} has {needed} tags or "
        f"more, separated by commas, with train.keep_tokens={tags.keep}; remove it"
    )


def shares(config: TrainConfig, tags: TagVariants) -> dict[str, float]:
    """The share of the training captions that have tags enough to be varied, by the run of their curation."""
    counts: dict[str, list[int]] = {}
    for shard in read_manifest(config.curate_dir).shards_of("train"):
        found = captions_of(config.curate_dir, shard)
        of_run = counts.setdefault(owner_of(config.curate_dir, shard.path).parent.name, [0, 0])
        of_run[0] += sum(map(tags.changes, found))
        of_run[1] += len(found)
    return {name: varied / max(total, 1) for name, (varied, total) in counts.items()}
