"""Captions of tags, separated by commas: in another order, and with some left out, each time a picture is seen.

Hidden states are cached, so each caption has so many variants, drawn once, and every visit of its picture takes one of
them. They depend on the caption and these settings alone: two runs share them, and more variants begin with the same.
What is held out, and all checks before training, read captions as they are written.

The rules are kohya's ``shuffle_caption``, ``keep_tokens`` and ``caption_tag_dropout_rate``: tags are what is between
commas, without spaces at their ends; the first few keep their place and are never left out; ", " joins the others.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from curate.run.manifest import Manifest
from curate.run.schema import UserError
from finetune.sidecars import captions_of

if TYPE_CHECKING:
    from finetune.config import TrainConfig


@dataclass(frozen=True, slots=True)
class TagVariants:
    """How captions are varied.

    Attributes:
        shuffle: whether tags change their order. keep: how many of the first stay as they are.
        dropout: probability of each other tag to be left out.
        count: variants of each caption.
    """

    shuffle: bool
    keep: int
    dropout: float
    count: int

    @classmethod
    def of(cls, config: TrainConfig) -> TagVariants | None:
        """Those of a training; None where captions stay as they are written."""
        train = config.train
        if not (train.shuffle_caption or train.caption_tag_dropout):
            return None
        return cls(
            train.shuffle_caption, train.keep_tokens, train.caption_tag_dropout, train.tag_variants
        )

    def texts(self, captions: Sequence[str]) -> list[str]:
        """The captions as they are written, then the variants of each."""
        return [*captions, *(text for caption in captions for text in self.variants(caption))]

    def variants(self, caption: str) -> list[str]:
        """``count`` texts, which may be alike where there are few tags."""
        seed = hashlib.blake2b(caption.encode(), digest_size=8, person=b"tags").digest()
        generator = random.Random(int.from_bytes(seed, "little"))
        tags = tags_of(caption)
        fixed, others = tags[: self.keep], tags[self.keep :]
        return [", ".join(fixed + self._drawn(others, generator)) for _ in range(self.count)]

    def _drawn(self, tags: list[str], generator: random.Random) -> list[str]:
        # Only random() is promised to give the same numbers in every version of Python.
        places = [(generator.random(), tag) for tag in tags]
        kept = [place for place in places if generator.random() >= self.dropout]
        return [
            tag for _, tag in (sorted(kept, key=lambda place: place[0]) if self.shuffle else kept)
        ]

    def changes(self, caption: str) -> bool:
        """Whether a caption has tags enough to be varied."""
        return len(tags_of(caption)) > self.keep + (self.dropout == 0)


def tags_of(caption: str) -> list[str]:
    """What is between commas.

    >>> tags_of("ohwx,  red hair , smile,")
    ['ohwx', 'red hair', 'smile']
    """
    return [tag for part in caption.split(",") if (tag := part.strip())]


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
