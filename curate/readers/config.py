"""The typed schema of the group ``dataset/``, with the range of every value."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from curate.run.schema import PATH, check, entries, register


@dataclass
class DatasetConfig:
    """What all sources share."""

    name: str = MISSING
    reader: str = MISSING
    limit: int | None = None  # images at most, the first ones; for trials
    sample: float | None = None  # this share of the images, chosen by hash of their keys
    scrub_contacts: bool = (
        False  # take URLs, e-mail addresses and telephone numbers out of captions
    )
    shard: str | None = None  # "i/n": the i-th of n parts by hash, 0 <= i < n, for n machines

    def __post_init__(self) -> None:
        check(self.limit is None or self.limit > 0, "dataset.limit", self.limit, "null or > 0")
        share = self.sample
        check(share is None or 0 < share <= 1, "dataset.sample", share, "null or a share up to 1")
        part = re.fullmatch(r"(\d+)/(\d+)", self.shard or "0/1")
        sound = bool(part) and int(part[1]) < int(part[2])
        check(sound, "dataset.shard", self.shard, "null or i/n with 0 <= i < n, such as 0/4")


@dataclass
class OpenmojiConfig(DatasetConfig):
    """OpenMoji's pictures, rendered, with the names that Unicode's CLDR gives them."""

    size_px: int = 64
    language: str = "en"
    mismatch: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check(16 <= self.size_px <= 1024, "dataset.size_px", self.size_px, "16 ... 1024")
        check(0 <= self.mismatch <= 1, "dataset.mismatch", self.mismatch, "a share, 0 ... 1")


@dataclass
class CocoConfig(DatasetConfig):
    """COCO's own layout: ``annotations/captions_*.json`` beside the image folders they name."""

    root: str = field(default=MISSING, metadata=PATH)
    splits: list[str] | None = None  # such as [train2017]; null takes every caption file


@dataclass
class VisualGenomeConfig(DatasetConfig):
    """Visual Genome's region descriptions beside its images."""

    root: str = field(default=MISSING, metadata=PATH)
    captions_per_image: int | None = 5  # phrases, those of the largest regions; null takes all
    min_region_share: float = 0.0  # of the picture's area; smaller regions say little of it

    def __post_init__(self) -> None:
        super().__post_init__()
        most, share = self.captions_per_image, self.min_region_share
        check(most is None or most > 0, "dataset.captions_per_image", most, "null or > 0")
        check(0 <= share <= 1, "dataset.min_region_share", share, "a share, 0 ... 1")


@dataclass
class Cifar10Config(DatasetConfig):
    """CIFAR-10 as published for Python, packed or unpacked."""

    root: str = field(default=MISSING, metadata=PATH)
    template: str = "a photo of a {label}"
    splits: list[str] | None = None  # of train and test; null takes both

    def __post_init__(self) -> None:
        super().__post_init__()
        check("{label}" in self.template, "dataset.template", self.template, "a text with {label}")
        sound = self.splits is None or (self.splits and {*self.splits} <= {"train", "test"})
        check(bool(sound), "dataset.splits", self.splits, "null or some of [train,test]")


@dataclass
class ShardsConfig(DatasetConfig):
    """WebDataset tars in the layout of img2dataset or any other."""

    path: Any = field(
        default=MISSING, metadata=PATH
    )  # a folder, a tar, a glob, a brace range, or a list of them
    caption_field: str | None = None  # of the JSON members; null: .txt, .caption or the usual names
    unique_keys: bool = False  # over all shards: then they stay without the shard's name

    def __post_init__(self) -> None:
        super().__post_init__()
        items = self.path if isinstance(self.path, list) else [self.path]
        sound = bool(items) and all(isinstance(item, str) and item for item in items)
        check(sound, "dataset.path", self.path, "a folder, a .tar, a pattern, or a list of them")


@dataclass
class FolderConfig(DatasetConfig):
    """Images with caption files beside them, or with a metadata table as Hugging Face has it."""

    root: str = field(default=MISSING, metadata=PATH)


@dataclass
class HubConfig(DatasetConfig):
    """Whatever Hugging Face's `datasets` opens."""

    path: str = field(default=MISSING, metadata=PATH)  # a name on the hub, or a folder
    config: str | None = None  # which of the data set's configurations
    split: str = "train"
    revision: str | None = None  # a tag or commit of the hub's repository
    image_column: str | None = None  # null: the only one that holds images
    caption_column: str | None = None  # null: text, caption, ...; a.b is field b of column a
    streaming: bool = False
    spool: str = field(default="data/spool", metadata=PATH)  # where a stream's samples are kept


@dataclass
class TableConfig(DatasetConfig):
    """A table of addresses and captions, and a folder with the pictures fetched from them.

    Attributes:
        path: a file, a folder or a glob.
        file_type: csv, tsv, jsonl or parquet; null tells it from the files' names.
        columns: the columns' names in order, for text without a line of names.
        quotes: whether a quoted field of text may hold delimiters and ends of line, as csv writers
            have it; without, a line is a row and a quote is a character.
        url_encoded: whether the fields are written as in an address and captions may hold HTML.
        url_column: null takes the first known name, as do the next two.
        caption_columns: the text of each is a caption of its own.
        image_column: names the image's file below ``images_dir``.
        leave_out: rows in which a column has this value are left out, with a note.
        images_dir: image files, or WebDataset shards as img2dataset writes them.
        index: where the index of ``images_dir`` is kept; null keeps it in that folder.
    """

    path: str = field(default=MISSING, metadata=PATH)
    file_type: str | None = None
    columns: list[str] | None = None
    quotes: bool = True
    url_encoded: bool = False
    url_column: str | None = None
    caption_columns: list[str] | None = None
    image_column: str | None = None
    leave_out: dict[str, str] = field(default_factory=dict, metadata=entries(str))
    images_dir: str | None = field(default=None, metadata=PATH)
    index: str | None = field(default=None, metadata=PATH)

    def __post_init__(self) -> None:
        super().__post_init__()
        kinds = (None, "csv", "tsv", "jsonl", "parquet")
        kind, names = self.file_type, self.columns
        check(kind in kinds, "dataset.file_type", kind, "null, csv, tsv, jsonl, parquet")
        sound = names is None or (bool(names) and len(set(names)) == len(names))
        check(sound, "dataset.columns", names, "null or different names")
        captions = self.caption_columns
        check(
            captions is None or bool(captions), "dataset.caption_columns", captions, "null or names"
        )


register(OpenmojiConfig, "openmoji", "dataset")
register(CocoConfig, "coco", "dataset")
register(FolderConfig, "folder", "dataset")
register(VisualGenomeConfig, "visual_genome", "dataset")
register(HubConfig, "hub", "dataset")
register(Cifar10Config, "cifar10", "dataset")
register(ShardsConfig, "shards", "dataset")
register(TableConfig, "table", "dataset")
