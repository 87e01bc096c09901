"""COCO Captions, any year: the published caption files, beside the folders of their images."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import MISSING

from curate.measures.unreadable import MISSING_FILE, UnreadableImage
from curate.readers.archives import Archive
from curate.readers.candidate import Candidate, key_of
from curate.readers.coco_archives import published
from curate.readers.columns import captions_in
from curate.readers.config import DatasetConfig
from curate.readers.counted_notes import CountedNotes
from curate.readers.files import among, is_image, read_bytes, version_of
from curate.readers.json_object import json_object
from curate.readers.matching.claims import Row
from curate.readers.matching.paths import local_path
from curate.readers.registry import Reads, register_reader
from curate.readers.source import Source
from curate.run.schema import PATH, UserError

_PREFIX = "captions_"


@dataclass
class CocoConfig(DatasetConfig):
    """COCO as its archives unpack: ``annotations/captions_*.json`` beside the image folders.

    Attributes:
        root: the folder that holds ``annotations``, or one caption file.
        splits: such as [train2017]; null takes every caption file.
        download: whether what is missing is fetched, which is train2017 and val2017, or ``splits``.
    """

    root: str = field(default=MISSING, metadata=PATH)
    splits: list[str] | None = None
    download: bool = False

    @property
    def archives(self) -> tuple[Archive, ...]:
        """As ``coco_archives.published`` has them."""
        return published(self.splits)


def reads(config: CocoConfig) -> Reads:
    """The caption files, and the images in the folders of their splits."""
    root, paths = _find(config)
    is_caption_file = among(paths)
    folders = tuple(os.path.abspath(root / _split_of(path)) + os.sep for path in paths)  # noqa: PTH100 (which would keep ..)
    return lambda path: (
        is_caption_file(path) or (is_image(path) and os.path.normpath(path).startswith(folders))
    )


@register_reader("coco", CocoConfig, reads)
def read(config: CocoConfig) -> Source:
    """List every image of every caption file, each with all its captions in the file's order.

    The image folders are beside ``annotations``, or beside a caption file that is in another folder.
    The column ``group`` holds the image id, which is the same in 2014 and 2017: both copies of an
    image go to the same side of the split.

    Raises:
        FileNotFoundError: the root or the caption file of one of ``splits`` is missing.
        UserError: a caption file or one of its records is not like COCO's, or lists an image twice.
    """
    root, paths = _find(config)
    candidates: list[Candidate] = []
    notes: list[str] = []
    matched: list[str] = []
    counted = CountedNotes(matched)
    for path in paths:
        found = _read_split(config, root, path, counted)
        if not (root / _split_of(path)).is_dir():
            notes.append(
                f"{root / _split_of(path)} is missing: the {len(found)} images of {path.name} are "
                "counted as missing files"
            )
        candidates += found
    present = frozenset(candidate.location for candidate in candidates if candidate.version)
    return Source.of(candidates, partial(_load_present, root, present), [*notes, *matched])


def _load_present(root: Path, present: frozenset[str], location: str) -> bytes:
    if not location:  # captions of an unlisted image are counted, too
        raise UnreadableImage("image id is not in images")
    if location not in present:  # there may be such a file that is another image's
        raise UnreadableImage(MISSING_FILE)
    return read_bytes(root / location)


def _find(config: CocoConfig) -> tuple[Path, list[Path]]:
    """The folder that holds the image folders, and the caption files."""
    root = Path(config.root)
    if root.is_file():
        above = root.parent
        return above.parent if above.name == "annotations" else above, [root]
    if not root.is_dir():
        raise FileNotFoundError(
            f"dataset.root={config.root} is not a folder; type dataset.root=FOLDER, where FOLDER holds "
            "annotations/captions_train2017.json and train2017/ as COCO's archives unpack"
        )
    return root, _caption_files(root, config.splits)


def _split_of(path: Path) -> str:
    """``val2014`` of ``captions_val2014.json``, which is also the name of the image folder."""
    return path.stem.partition(_PREFIX)[2] or path.stem


def _caption_files(root: Path, splits: list[str] | None) -> list[Path]:
    found = {_split_of(path): path for path in root.glob(f"annotations/{_PREFIX}*.json")}
    if not found:
        raise FileNotFoundError(
            f"dataset.root={root} holds no annotations/{_PREFIX}*.json; unpack COCO's "
            "annotations_trainval2017.zip there, or type dataset.download=true, or dataset.root=FOLDER"
        )
    for split in splits or ():
        if split not in found:
            raise UserError(
                f"dataset.splits names {split!r}, which has no annotations/{_PREFIX}{split}.json; "
                f"found: {', '.join(sorted(found))}"
            )
    return [found[split] for split in splits or sorted(found)]


def _read_split(config: CocoConfig, root: Path, path: Path, notes: CountedNotes) -> list[Candidate]:
    split = _split_of(path)
    content = _load(path)
    with _named(path, "licenses"):
        licences = {entry["id"]: entry for entry in content.get("licenses") or ()}
    with _named(path, "annotations"):
        captions = _captions(content["annotations"])
    with _named(path, "images"):
        images = {int(image["id"]): image for image in content["images"]}
    if len(images) != len(content["images"]):
        raise UserError(f"{path} lists an image id twice; use the published file")
    with _named(path, "images"):
        found = _matches(root, split, images, notes)
        return [
            _candidate(
                config, root, split, number, images.get(number), captions[number], licences, found
            )
            for number in sorted(images.keys() | captions.keys())
        ]


def _captions(annotations: list[dict[str, Any]]) -> dict[int, list[str]]:
    """Captions by image id; a null becomes an empty caption, which a rule drops and counts."""
    captions: dict[int, list[str]] = defaultdict(list)
    for annotation in annotations:
        captions[int(annotation["image_id"])] += captions_in(annotation["caption"]) or ("",)
    return captions


def _candidate(
    config: CocoConfig,
    root: Path,
    split: str,
    number: int,
    image: dict[str, Any] | None,
    captions: list[str],
    licences: dict[Any, dict[str, Any]],
    found: dict[int, str],
) -> Candidate:
    location = f"{split}/{found[number] or image['file_name']}" if image is not None else ""
    image = image or {}
    licence = licences.get(image.get("license"), {})
    return Candidate(
        key=key_of(f"{split}-{number:012d}"),
        captions=tuple(captions),
        source=config.name,
        location=location,
        version=version_of(root / location) if found.get(number) else "",
        columns={
            "source_split": split,
            "url": image.get("coco_url") or "",
            "flickr_url": image.get("flickr_url") or "",
            "licence": licence.get("name") or "",
            "licence_url": licence.get("url") or "",
            "group": f"coco-{number}",  # the same in 2014 and 2017, and in Visual Genome
        },
    )


def _matches(
    root: Path, split: str, images: dict[int, dict[str, Any]], notes: CountedNotes
) -> dict[int, str]:
    """The file of each listed image, by its id, below the folder of its split; "" for none."""
    from curate.readers.matching.matches import match

    folder = root / split
    matches = match(folder, [_row(folder, image) for image in images.values()])
    for number, found in zip(images, matches, strict=True):
        if found.note:
            notes.add(found.note, f"image {number} of {split}")
    return {number: found.location for number, found in zip(images, matches, strict=True)}


def _row(folder: Path, image: dict[str, Any]) -> Row:
    urls = (image.get("coco_url"), image.get("flickr_url"))
    return Row(
        paths=(local_path(folder, image["file_name"]),),
        addresses=tuple(url for url in urls if url and isinstance(url, str)),
    )


@contextmanager
def _named(path: Path, records: str) -> Iterator[None]:
    """Raise ``UserError`` for ``records`` that are not like COCO's."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        fault = f"lacks {error}" if isinstance(error, KeyError) else f"has another form ({error})"
        raise UserError(
            f"{path} is not a COCO caption file: a record of {records!r} {fault}; use captions_*.json of "
            "COCO's annotations_trainval2017.zip, or a file in the same format"
        ) from error


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json_object(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); unpack it again") from error
    if not {"images", "annotations"} <= content.keys():
        raise UserError(f"{path} is not a COCO caption file: 'images' or 'annotations' is missing")
    return content
