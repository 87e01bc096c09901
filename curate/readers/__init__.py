"""Readers offer a data set as a `Source` of candidates: one module of `READERS` per family of formats."""

from __future__ import annotations

from importlib import import_module

from curate.readers.config import DatasetConfig
from curate.readers.selection import select
from curate.readers.source import Source
from curate.run.cli import UserError

READERS = {
    name: name
    for name in ("cifar10", "coco", "folder", "hub", "openmoji", "shards", "visual_genome")
} | {"table": "tables.reader"}


def read(config: DatasetConfig) -> Source:
    """Open the data set and look at its first image's entry, without opening an image.

    Raises:
        UserError: no such reader, files that are not what they should be, or nothing found.
        FileNotFoundError: the folder or file that the configuration names is missing.
    """
    if config.reader not in READERS:
        raise UserError(
            f"dataset.reader={config.reader!r} is unknown; accepted: {', '.join(READERS)}"
        )
    source = select(import_module(f"curate.readers.{READERS[config.reader]}").read(config), config)
    if config.scrub_contacts:
        source = import_module("curate.readers.scrub").scrub(source)
    if next(source.candidates(), None) is None:
        raise UserError("; ".join([f"dataset={config.name} holds no images", *source.notes]))
    return source
