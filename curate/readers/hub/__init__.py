"""Data sets that Hugging Face's `datasets` opens: their configuration, and their registration."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from curate.readers.config import DatasetConfig
from curate.readers.registry import register_reader
from curate.readers.source import Source
from curate.run.schema import PATH


@dataclass
class HubConfig(DatasetConfig):
    """Any data set that Hugging Face's `datasets` opens.

    Attributes:
        path: a name on the hub, or a folder.
        config: which of the data set's configurations.
        split: which of its splits.
        revision: a tag or commit of the hub's repository.
        image_column: null for the only column of images.
        caption_column: null for text, caption, ...; ``a.b`` is field b of column a.
        streaming: download only the samples that are used.
        spool: the folder that keeps a stream's samples.
    """

    path: str = field(default=MISSING, metadata=PATH)
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    image_column: str | None = None
    caption_column: str | None = None
    streaming: bool = False
    spool: str = field(default="data/spool", metadata=PATH)


@register_reader("hub", HubConfig)
def read(config: HubConfig) -> Source:
    """Open the data set, see ``reader.read``."""
    from curate.readers.hub import reader

    return reader.read(config)
