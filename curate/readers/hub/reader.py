"""Data sets that Hugging Face's `datasets` opens: by name on the hub, from a folder, or saved to disk.

By default the library downloads the whole data set into its cache, and rows are read in any order.
With ``dataset.streaming=true`` only the samples that are used are downloaded, see ``stream_cache``.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate.measures.unreadable import CANNOT_BE_READ, UnreadableImage
from curate.readers.candidate import Candidate, key_of
from curate.readers.columns import CAPTION_NAMES, captions_in, flat
from curate.readers.files import version_of
from curate.readers.hub import HubConfig, stream_cache
from curate.readers.hub.stored_image import bytes_of, folders_of
from curate.readers.source import Source
from curate.run import hub
from curate.run.schema import UserError

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

IMAGE_NAMES = ("image", "img", "jpg", "jpeg", "png", "webp", "picture", "photo")
_CAPTION_NAMES = (*CAPTION_NAMES, "txt")  # txt: of webdataset
_SAVED = ("state.json", "dataset_dict.json")  # of Dataset.save_to_disk, DatasetDict.save_to_disk


def read(config: HubConfig) -> Source:
    """Open the data set and find its image and caption columns.

    Other columns go to the ledger, labels as their names; those with images, audio, video or bytes do not,
    of which a note tells.

    Raises:
        UserError: it cannot be opened, or the image or caption column is missing or ambiguous; lists
            the columns.
    """
    dataset, version = _open(config)
    reader = _RowReader(config, dataset)
    if _is_stream(dataset):
        return stream_cache.source(
            config, version, lambda start: reader.rows(dataset.skip(start)), reader.notes
        )
    return _random_access(config, dataset, version, reader)


def _random_access(config: HubConfig, dataset: Dataset, version: str, reader: _RowReader) -> Source:
    images = reader.encoded(dataset.select_columns([reader.image]))
    rest: Any = dataset.remove_columns(reader.media)

    def candidates() -> Iterator[Candidate]:
        for number, (row, file) in enumerate(zip(rest, _files(images, reader.image), strict=True)):
            yield Candidate(
                key=key_of(f"{config.split}-{number:09d}"),
                captions=reader.captions(row),
                source=config.name,
                location=str(number),
                version=f"{version}-{version_of(Path(file))}" if file else version,
                columns=reader.columns(row),
            )

    load = partial(_load_row, images, reader.image, reader.folders)
    return Source(candidates, load, len(dataset), reader.notes)


def _load_row(images: Dataset, column: str, folders: tuple[Path, ...], location: str) -> bytes:
    return bytes_of(images[int(location)][column], folders)


def _files(images: Dataset, column: str) -> Iterator[str]:
    """The path of each image that is in a file of its own, "" for one in its row."""
    for table in images.with_format("arrow").iter(batch_size=1000):
        for part in table[column].chunks:  # type: ignore[index]
            in_row = part.field("bytes").is_valid().to_pylist()
            paths = part.field("path").to_pylist()
            yield from (
                "" if inside else path or "" for inside, path in zip(in_row, paths, strict=True)
            )


class _RowReader:
    """Finds the image and caption columns, and reads rows."""

    def __init__(self, config: HubConfig, dataset: Dataset | IterableDataset) -> None:
        features: Any = dataset.features
        if features is None:  # a stream whose files do not declare them
            features = dataset._resolve_features().features  # type: ignore[union-attr]
        self.features: Mapping[str, Any] = features
        self.folders = folders_of(config.path)
        self.image = self._image_column(config)
        self.caption = self._caption_column(config)
        given = (self.image, self.caption.partition(".")[0])
        left = [name for name, f in features.items() if name not in given and _is_media(f)]
        self.media = [self.image, *left]
        what = "columns of images, audio, video or bytes, left out"
        self.notes = [f"{what}: {len(left)}, such as {left[0]}"] if left else []

    def encoded(self, dataset: Any) -> Any:
        """``dataset`` with images as stored, ``{"bytes", "path"}``, not decoded."""
        from datasets import Image

        return dataset.cast_column(self.image, Image(decode=False))

    def rows(self, stream: IterableDataset) -> Iterator[stream_cache.Row]:
        """Image, captions and columns of each row of a stream.

        Raises:
            OSError: an image cannot be read now; the cache would keep it as missing for good.
        """
        others = [name for name in self.media if name != self.image]
        for row in self.encoded(stream.remove_columns(others)):
            try:
                image = bytes_of(row.pop(self.image), self.folders)
            except UnreadableImage as error:
                if error.reason.startswith(CANNOT_BE_READ):
                    raise OSError(error.reason) from error
                image = None
            yield image, self.captions(row), self.columns(row)

    def captions(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        """The captions of a row; a label's name where the column holds labels."""
        outer, _, inner = self.caption.partition(".")
        value = self._named(outer, row[outer])
        return captions_in((value or {}).get(inner) if inner else value)

    def columns(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The other columns of a row, labels as their names."""
        return flat({name: self._named(name, value) for name, value in row.items()}, {self.caption})

    def _named(self, name: str, value: Any) -> Any:
        feature = self.features[name]
        is_label = hasattr(feature, "int2str") and isinstance(value, int) and value >= 0
        return feature.int2str(value) if is_label else value

    def _image_column(self, config: HubConfig) -> str:
        if config.image_column:
            return self._known("image_column", config.image_column)
        typed = [name for name, f in self.features.items() if type(f).__name__ == "Image"]
        if len(typed) == 1:
            return typed[0]
        found = [name for name in IMAGE_NAMES if name in (typed or self.features)]
        return found[0] if found else self._refuse("image_column")

    def _caption_column(self, config: HubConfig) -> str:
        if config.caption_column:
            self._known("caption_column", config.caption_column.partition(".")[0])
            return config.caption_column
        nested = self.features.get("json")  # of webdataset
        inner = [
            f"json.{name}" for name in _CAPTION_NAMES if isinstance(nested, dict) and name in nested
        ]
        found = [name for name in _CAPTION_NAMES if name in self.features] + inner
        return found[0] if found else self._refuse("caption_column")

    def _known(self, key: str, name: str) -> str:
        return name if name in self.features else self._refuse(key)

    def _refuse(self, key: str) -> Any:
        columns = ", ".join(f"{name} ({_type_of(f)})" for name, f in self.features.items())
        raise UserError(f"type dataset.{key}=NAME with one of this data set's columns: {columns}")


def _type_of(feature: Any) -> str:
    return getattr(feature, "dtype", None) or type(feature).__name__


def _is_media(feature: Any) -> bool:
    """Whether a feature holds images, audio, video or bytes at any depth."""
    if isinstance(feature, dict):
        return any(map(_is_media, feature.values()))
    if getattr(feature, "dtype", None) in ("binary", "large_binary"):
        return True
    return hasattr(feature, "decode_example") or _is_media_list(feature)


def _is_media_list(feature: Any) -> bool:
    return hasattr(feature, "feature") and _is_media(feature.feature)


def _is_stream(dataset: Any) -> bool:
    from datasets import IterableDataset

    return isinstance(dataset, IterableDataset)


def _refuse_unreachable(config: HubConfig) -> None:
    """Refuse a data set that is neither here nor can be fetched, before its library retries for a minute.

    Raises:
        UserError: says what to type instead.
    """
    is_name = re.fullmatch(r"[\w-][\w.-]*(/[\w.-]+)?", config.path)
    if not is_name or Path(config.path).exists() or hub.is_reachable():
        return
    from huggingface_hub import constants

    constants.HF_HUB_OFFLINE = True  # what is cached is taken without retries
    os.environ["HF_HUB_OFFLINE"] = "1"
    caches = (Path(constants.HF_HUB_CACHE), Path(constants.HF_HOME, "datasets"))
    # owner/name is owner--name in one, owner___name in the other.
    named = config.path.replace("/", "?*").lower()
    if not any(
        fnmatch(found.name.lower(), f"*{named}")
        for cache in caches
        if cache.is_dir()
        for found in cache.iterdir()
    ):
        raise UserError(
            f"dataset.path={config.path} cannot be opened: it is no folder here, and the Hugging Face hub cannot be "
            "reached. Fetch it elsewhere and type dataset.path=FOLDER"
        )


def _open(config: HubConfig) -> tuple[Any, str]:
    """The data set, and a version that changes with its content."""
    _refuse_unreachable(config)
    from datasets import load_dataset, load_dataset_builder
    from datasets.exceptions import DatasetsError

    folder = Path(config.path)
    try:
        if any((folder / name).is_file() for name in _SAVED):
            dataset = _saved(config)
        elif config.streaming:
            builder = load_dataset_builder(
                config.path, name=config.config, revision=config.revision
            )
            return builder.as_streaming_dataset(split=config.split), _state_of(builder)
        else:
            dataset = load_dataset(
                config.path, name=config.config, split=config.split, revision=config.revision
            )
        return dataset, _version(dataset)
    except (DatasetsError, OSError, ValueError) as error:
        raise UserError(
            f"dataset.path={config.path} cannot be opened with dataset.config={config.config} and "
            f"dataset.split={config.split}: {error}"
        ) from error


def _version(dataset: Dataset) -> str:
    """A hash that changes with the files and all transformations, or with the Arrow files that are read."""
    read = [version_of(Path(file["filename"])) for file in dataset.cache_files]
    known = json.dumps([dataset._fingerprint, read])
    return hashlib.blake2b(known.encode(), digest_size=8).hexdigest()


def _state_of(builder: Any) -> str:
    """A hash that changes with a stream's files: with the hub's commit or their modification times."""
    files = builder.config.data_files
    if not files:
        return str(builder.hash)
    known = [[str(split), list(found), found.origin_metadata] for split, found in files.items()]
    return hashlib.sha256(json.dumps(known).encode()).hexdigest()


def _saved(config: HubConfig) -> Any:
    from datasets import DatasetDict, load_from_disk

    dataset = load_from_disk(config.path)
    if not isinstance(dataset, DatasetDict):
        return dataset
    if config.split not in dataset:
        raise ValueError(f"it holds the splits {', '.join(map(str, dataset))}")
    return dataset[config.split]
