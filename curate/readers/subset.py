"""A subset of a data set: ``dataset.sample``, ``dataset.shard`` and ``dataset.limit``."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from curate.readers.candidate import Candidate
from curate.readers.config import DatasetConfig
from curate.readers.source import Source


def take_subset(source: Source, config: DatasetConfig) -> Source:
    """``source`` reduced to ``dataset.sample``, then ``dataset.shard``, then ``dataset.limit``.

    The first two depend on the keys alone: an image is chosen or not whatever else the data set
    holds, and the n shards together are the whole data set.
    """
    if config.sample is None and config.shard is None and config.limit is None:
        return source

    def candidates() -> Iterator[Candidate]:
        chosen = (c for c in source.candidates() if is_chosen(c.key, config))
        return islice(chosen, config.limit)

    return replace(source, candidates=candidates, total=None)


def described(config: DatasetConfig) -> str:
    """The keys that reduce the data set, as typed: ``dataset.sample=0.01 dataset.shard=0/8``; "" for none."""
    names = ("sample", "shard", "limit")
    values = {name: getattr(config, name) for name in names}
    return " ".join(
        f"dataset.{name}={value}" for name, value in values.items() if value is not None
    )


def is_chosen(key: str, config: DatasetConfig) -> bool:
    """Whether ``dataset.sample`` and ``dataset.shard`` choose the image of this key."""
    if config.sample is not None and _position(key, b"sample") >= config.sample:
        return False
    if config.shard is None:
        return True
    number, count = map(int, config.shard.split("/"))
    return int(_position(key, b"shard") * count) == number


def _position(key: str, salt: bytes) -> float:
    """A number in [0, 1) that depends on the key and the salt only."""
    digest = hashlib.blake2b(key.encode(), digest_size=6, salt=salt).digest()
    return int.from_bytes(digest, "big") / 2**48
