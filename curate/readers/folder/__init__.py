"""Folders of images with caption files or metadata tables: their configuration and registration."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from curate.readers.config import DatasetConfig
from curate.readers.registry import register_reader
from curate.readers.source import Source
from curate.run.schema import PATH


@dataclass
class FolderConfig(DatasetConfig):
    """Images with caption files beside them, or with a metadata table as in Hugging Face's imagefolder.

    Attributes:
        root: the folder; images are found in its subfolders, too.
    """

    root: str = field(default=MISSING, metadata=PATH)


@register_reader("folder", FolderConfig)
def read(config: FolderConfig) -> Source:
    """Open the folder, see ``reader.read``."""
    from curate.readers.folder import reader

    return reader.read(config)
