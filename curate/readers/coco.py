"""COCO Captions, any year: the caption files as published, beside the image folders they speak of."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any

from curate.measures.unreadable import UnreadableImage
from curate.readers.candidate import Candidate, key_of
from curate.readers.columns import captions_in
from curate.readers.config import CocoConfig
from curate.readers.files import loader, version_of
from curate.readers.json_object import json_object
from curate.readers.source import Source
from curate.run.cli import UserError

_PREFIX = "captions_"


def read(config: CocoConfig) -> Source:
    """List every image of every caption file, each with all its captions in the file's order.

    ``dataset.root`` may also be one caption file, as published or by itself. The column ``group`` is
    the image id: ids are the same in 2014 and 2017, so that the two never part in a split.

    Raises:
        FileNotFoundError: the root or a caption file that was asked for is missing.
        UserError: a caption file is not COCO's, a record lacks what COCO's have, or an image comes twice.
    """
    root, paths = _find(config)
    candidates: list[Candidate] = []
    notes = []
    for path in paths:
        found = _read_split(config, root, path)
        if not (root / _split_of(path)).is_dir():
            notes.append(
                f"{root / _split_of(path)} is not there: the {len(found)} images of {path.name} count as "
                "missing files"
            )
        candidates += found
    files = loader(root)

    def load(location: str) -> bytes:
        if not location:  # the captions are counted, not lost
            raise UnreadableImage("image id is not in images")
        return files(location)

    return Source.of(candidates, load, notes)


def _find(config: CocoConfig) -> tuple[Path, list[Path]]:
    """The folder that the image folders are in, and the caption files."""
    root = Path(config.root)
    if root.is_file():
        above = root.parent
        return above.parent if above.name == "annotations" else above, [root]
    if not root.is_dir():
        raise FileNotFoundError(
            f"dataset.root={config.root} is no folder; type dataset.root=FOLDER, where FOLDER holds "
            "annotations/captions_train2017.json and train2017/ as COCO's archives unpack"
        )
    return root, _caption_files(root, config.splits)


def _split_of(path: Path) -> str:
    """``captions_val2014.json`` => ``val2014``, which is also the name of the image folder."""
    return path.stem.partition(_PREFIX)[2] or path.stem


def _caption_files(root: Path, splits: list[str] | None) -> list[Path]:
    found = {_split_of(path): path for path in root.glob(f"annotations/{_PREFIX}*.json")}
    if not found:
        raise FileNotFoundError(
            f"dataset.root={root} holds no annotations/{_PREFIX}*.json; unpack COCO's "
            "annotations_trainval2017.zip there, or type dataset.root=FOLDER"
        )
    for split in splits or ():
        if split not in found:
            raise UserError(
                f"dataset.splits names {split!r}, which has no annotations/{_PREFIX}{split}.json; "
                f"found: {', '.join(sorted(found))}"
            )
    return [found[split] for split in splits or sorted(found)]


def _read_split(config: CocoConfig, root: Path, path: Path) -> list[Candidate]:
    split = _split_of(path)
    content = _load(path)
    with _named(path, "licenses"):
        licences = {entry["id"]: entry for entry in content.get("licenses") or ()}
    with _named(path, "annotations"):
        captions = _captions(content["annotations"])
    with _named(path, "images"):
        images = {int(image["id"]): image for image in content["images"]}
    if len(images) != len(content["images"]):
        raise UserError(f"{path} lists an image id twice; take the published file")
    with _named(path, "images"):
        return [
            _candidate(config, root, split, number, images.get(number), captions[number], licences)
            for number in sorted(images.keys() | captions.keys())
        ]


def _captions(annotations: list[dict[str, Any]]) -> dict[int, list[str]]:
    """Each image's, by its id; one that is null is empty, for the rules to drop and to count."""
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
) -> Candidate:
    location = _location(root, split, image["file_name"]) if image is not None else ""
    image = image or {}
    licence = licences.get(image.get("license"), {})
    return Candidate(
        key=key_of(f"{split}-{number:012d}"),
        captions=tuple(captions),
        source=config.name,
        location=location,
        version=version_of(root / location) if location else "",
        columns={
            "source_split": split,
            "url": image.get("coco_url") or "",
            "flickr_url": image.get("flickr_url") or "",
            "licence": licence.get("name") or "",
            "licence_url": licence.get("url") or "",
            "group": f"coco-{number}",  # the same in 2014 and 2017, and in Visual Genome
        },
    )


def _location(root: Path, split: str, file_name: str) -> str:
    """The file in its split's folder: at the path as written, or else by that path's last part."""
    written, last = f"{split}/{file_name}", f"{split}/{PurePath(file_name).name}"
    leads_out = ".." in PurePath(file_name).parts
    return last if written == last or leads_out or not (root / written).is_file() else written


@contextmanager
def _named(path: Path, records: str) -> Iterator[None]:
    """Raise ``UserError`` for ``records`` of another shape than COCO's."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        lacks = f"lacks {error}" if isinstance(error, KeyError) else f"has another shape ({error})"
        raise UserError(
            f"{path} is no COCO caption file: a record of {records!r} {lacks}; take captions_*.json of "
            "COCO's annotations_trainval2017.zip, or one that is written like it"
        ) from error


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json_object(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); unpack it again") from error
    if not {"images", "annotations"} <= content.keys():
        raise UserError(f"{path} is no COCO caption file: 'images' or 'annotations' is missing")
    return content
