"""Folders of images with caption files or metadata tables: their configuration and registration."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from curate.readers.config import DatasetConfig
from curate.readers.files import among
from curate.readers.registry import Reads, register_reader
from curate.readers.source import Source
from curate.readers.text_encoding import check_encoding
from curate.run.schema import PATH


@dataclass
class FolderConfig(DatasetConfig):
    """Images with caption files beside them, or with a metadata table as in Hugging Face's imagefolder.

    Attributes:
        root: the folder; images are found in its subfolders, too.
        encoding: of text that is neither UTF-8 nor marked, such as cp1252; null detects it.
    """

    root: str = field(default=MISSING, metadata=PATH)
    encoding: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_encoding(self.encoding)


def reads(config: FolderConfig) -> Reads:
    """Pictures, the caption files that belong to one, and metadata tables; see ``reader.files_read``."""
    from curate.readers.folder import reader

    return among(reader.files_read(config))


@register_reader("folder", FolderConfig, reads)
def read(config: FolderConfig) -> Source:
    """Open the folder, see ``reader.read``."""
    from curate.readers.folder import reader

    return reader.read(config)
