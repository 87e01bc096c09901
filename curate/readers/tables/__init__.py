"""Tables of URLs and captions, with the downloaded pictures: their configuration and registration."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from omegaconf import MISSING

from curate.readers.config import DatasetConfig
from curate.readers.files import among
from curate.readers.registry import Reads, register_reader
from curate.readers.source import Source
from curate.readers.text_encoding import check_encoding
from curate.run.schema import PATH, check, entries


@dataclass
class TableConfig(DatasetConfig):
    """A table of URLs and captions, and a folder with the pictures downloaded from them.

    Attributes:
        path: a file, a folder or a glob.
        file_type: csv, tsv, jsonl or parquet; null derives it from the files' names.
        columns: the columns' names in order, for text without a header.
        quotes: whether a quoted field of text may contain delimiters and line ends, as in csv;
            if false, each line is a row and a quote is an ordinary character.
        encoding: of text that is neither UTF-8 nor has a byte order mark, such as cp1252; null
            detects it where that is certain.
        url_encoded: whether the fields are URL-encoded and captions may hold HTML.
        url_column: null takes the first known name, as do the next two; pictures are looked for by
            the other known names of URLs and files as well, unless a column is named here.
        caption_columns: each of them is a caption.
        image_column: names the image's file, relative to ``images_dir``.
        leave_out: rows in which a column has this value are left out, with a note.
        images_dir: image files, or WebDataset shards as img2dataset writes them.
        index: where the index of ``images_dir`` is kept; null keeps it in that folder.
    """

    path: str = field(default=MISSING, metadata=PATH)
    file_type: str | None = None
    columns: list[str] | None = None
    quotes: bool = True
    encoding: str | None = None
    url_encoded: bool = False
    url_column: str | None = None
    caption_columns: list[str] | None = None
    image_column: str | None = None
    leave_out: dict[str, str] = field(default_factory=dict, metadata=entries(str))
    images_dir: str | None = field(default=None, metadata=PATH)
    index: str | None = field(default=None, metadata=PATH)

    def __post_init__(self) -> None:
        super().__post_init__()
        types = (None, "csv", "tsv", "jsonl", "parquet")
        check(
            self.file_type in types,
            "dataset.file_type",
            self.file_type,
            "null, csv, tsv, jsonl, parquet",
        )
        names = self.columns
        sound = names is None or (bool(names) and len(set(names)) == len(names))
        check(sound, "dataset.columns", names, "null or different names")
        check_encoding(self.encoding)
        captions = self.caption_columns
        sound = captions is None or bool(captions)
        check(sound, "dataset.caption_columns", captions, "null or names")


def reads(config: TableConfig) -> Reads:
    """The tables, those beside them, and below ``images_dir`` pictures and what img2dataset writes."""
    from curate.readers.tables import files, images, neighbours

    tables = files.find(config.path, config.file_type, [], config.images_dir)
    is_table = among(table.path for table in [*tables, *neighbours.tables_beside(config, tables)])
    folder = os.path.abspath(config.images_dir or os.devnull)  # noqa: PTH100 (which would keep ..)

    def is_read(path: str) -> bool:
        inside = os.path.normpath(path).startswith(f"{folder}{os.sep}")
        return is_table(path) or (inside and images.is_indexed(path))

    return is_read


@register_reader("table", TableConfig, reads)
def read(config: TableConfig) -> Source:
    """Open the table, see ``reader.read``."""
    from curate.readers.tables import reader

    return reader.read(config)
