"""Readers open a data set as a `Source` of candidates.

A family of sources is a module here, or a package for one that needs several. It holds the config
dataclass and the function ``read``, decorated with `register_reader`. All are imported here, because
Hydra must know their schemas when a command starts: they import heavy packages inside functions.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module

from curate.readers.config import DatasetConfig
from curate.readers.presence import refuse_absent
from curate.readers.registry import READERS, READS, Reads
from curate.readers.scrub import scrub
from curate.readers.source import Source
from curate.readers.subset import described, take_subset
from curate.readers.wording import word
from curate.run.schema import UserError

for _module in pkgutil.iter_modules(__path__, f"{__name__}."):
    import_module(_module.name)


def read(config: DatasetConfig) -> Source:
    """Open the data set and read its first record, without opening an image.

    Raises:
        UserError: an unknown reader, files in another format than expected, or no images.
        FileNotFoundError: the folder or file that the configuration names is missing.
    """
    if config.reader not in READERS:
        raise UserError(
            f"dataset.reader={config.reader!r} is unknown; accepted: {', '.join(sorted(READERS))}"
        )
    refuse_absent(config)
    whole = READERS[config.reader](config)
    source = take_subset(whole, config)
    if config.scrub_contacts:
        source = scrub(source)
    if config.caption or config.trigger:
        source = word(source, config.caption, config.trigger)
    if next(source.candidates(), None) is None:
        raise UserError("; ".join([_nothing(config, whole), *source.notes]))
    return source


def reads(config: DatasetConfig) -> Reads:
    """What says whether the data set's reader opens a file, by the reader's own rule.

    Raises:
        UserError, FileNotFoundError: as :func:`read`.
    """
    return READS[config.reader](config) if config.reader in READS else lambda path: True


def _nothing(config: DatasetConfig, whole: Source) -> str:
    """What was looked at in vain."""
    if (chosen := described(config)) and next(whole.candidates(), None) is not None:
        return (
            f"dataset={config.name} holds images, but {chosen} chooses none of them; leave it out"
        )
    key = config.pictures_key
    place = f": looked in dataset.{key}={getattr(config, key)}" if key else ""
    return f"dataset={config.name} holds no images{place}"
