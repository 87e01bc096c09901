"""The registry of readers: the names that ``dataset.reader`` accepts, each with its schema and function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from curate.readers.config import DatasetConfig
from curate.readers.source import Source
from curate.run.schema import register

Config = TypeVar("Config", bound=DatasetConfig)
Read = Callable[[Config], Source]

READERS: dict[str, Callable[[Any], Source]] = {}

Reads = Callable[[str], bool]
"""Whether a reader opens the file at an absolute path, which has to be below a place that its settings name."""

READS: dict[str, Callable[[Any], Reads]] = {}
"""By the same names, what says which files a reader opens; those without may open any."""


def register_reader(
    name: str, schema: type[Config], reads: Callable[[Config], Reads] | None = None
) -> Callable[[Read[Config]], Read[Config]]:
    """Decorate the function that opens a source, so that ``dataset.reader=<name>`` calls it.

    ``schema`` is the dataclass of the source's configuration. Files in ``conf/dataset/`` name it first
    in their ``defaults`` list, as ``_<name>``. ``reads`` says which files the source is made of.

    Raises:
        ValueError: another reader has this name.
    """

    def add(read: Read[Config]) -> Read[Config]:
        if name in READERS:
            raise ValueError(f"two readers are called {name!r}")
        register(schema, name, "dataset")
        READERS[name] = read
        if reads is not None:
            READS[name] = reads
        return read

    return add
