"""Variants of captions of tags: tags in another order, and some left out; and a note of how a cache's were made.

The rules are kohya's ``shuffle_caption``, ``keep_tokens`` and ``caption_tag_dropout_rate``: tags are what is between
commas, without spaces at their ends; the first few keep their place and are never left out; ", " joins the others.

``<run.root>/.cache/conditioning/variants-*.json`` says by which settings captions were ever varied. The caption and these
give the texts that were encoded, so that a removal finds them.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from curate.run.files import read_json, write_json
from curate.run.shared_cache import CONDITIONING


@dataclass(frozen=True, slots=True)
class Variants:
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


def note(cache_dir: Path, variants: Variants) -> None:
    """Note how captions of a cache are varied, before any variant is in it."""
    content = {each.name: getattr(variants, each.name) for each in fields(Variants)}
    digest = hashlib.sha256(repr(content).encode()).hexdigest()
    path = cache_dir / CONDITIONING / f"variants-{digest[:16]}.json"
    if read_json(path) != content:
        write_json(path, content)


def encoded_of(cache_dir: Path, captions: Iterable[str]) -> Iterator[str]:
    """All texts that a cache may hold of some captions: as they are written, and varied in all noted ways."""
    found = map(read_json, sorted((cache_dir / CONDITIONING).glob("variants-*.json")))
    noted = [Variants(**content) for content in found if content]
    for caption in captions:
        yield caption
        for variants in noted:
            yield from variants.variants(caption)
