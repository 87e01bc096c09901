"""WebDataset shards: their configuration and registration."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from curate.readers.config import DatasetConfig
from curate.readers.files import among
from curate.readers.registry import Reads, register_reader
from curate.readers.source import Source
from curate.readers.text_encoding import check_encoding
from curate.run.schema import PATH, check


@dataclass
class ShardsConfig(DatasetConfig):
    """WebDataset tars, also compressed ones, in img2dataset's layout or any other.

    Attributes:
        path: a folder, a tar, a glob, a brace range, or a list of them.
        caption_field: of the JSON members; null for the text members, or the usual field names.
        encoding: of text members that are neither UTF-8 nor marked, such as cp1252; null detects it
            over all shards.
        spool: the folder that keeps plain copies of compressed tars.
        unique_keys: whether keys are unique over all shards; then they are kept without the shard's name.
    """

    path: Any = field(default=MISSING, metadata=PATH)
    caption_field: str | None = None
    encoding: str | None = None
    spool: str = field(default="data/spool", metadata=PATH)
    unique_keys: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_encoding(self.encoding)
        items = self.path if isinstance(self.path, list) else [self.path]
        sound = bool(items) and all(isinstance(item, str) and item for item in items)
        check(sound, "dataset.path", self.path, "a folder, a .tar, a pattern, or a list of them")


def reads(config: ShardsConfig) -> Reads:
    """The tars, and img2dataset's parquet beside each."""
    from curate.readers.shards.paths import expand, list_beside

    shards = expand(config.path)[0].values()
    return among([*shards, *map(list_beside, shards)])


@register_reader("shards", ShardsConfig, reads)
def read(config: ShardsConfig) -> Source:
    """Open the shards, see ``reader.read``."""
    from curate.readers.shards import reader

    return reader.read(config)
