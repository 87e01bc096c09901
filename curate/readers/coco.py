"""COCO Captions, any year: the caption files as published, beside the image folders they speak of."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path, PurePath
from typing import Any

from curate.command import UserError
from curate.images import UnreadableImage
from curate.readers.config import CocoConfig
from curate.readers.files import loader, version_of
from curate.readers.json_object import json_object
from curate.readers.source import Source
from curate.sample import Candidate, clean_caption, key_of

_PREFIX = "captions_"


def read(config: CocoConfig) -> Source:
    """List every image of every caption file, each with all its captions in the file's order.

    ``dataset.root`` may also be one caption file, as published or by itself. The column ``group`` is
    the image id: ids are the same in 2014 and 2017, so that the two never part in a split.

    Raises:
        FileNotFoundError: the root or a caption file that was asked for is missing.
        UserError: a caption file is not COCO's, or lists an image twice.
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
    licences = {entry["id"]: entry for entry in content.get("licenses", ())}
    captions: dict[int, list[str]] = defaultdict(list)
    for annotation in content["annotations"]:
        captions[annotation["image_id"]].append(clean_caption(annotation["caption"]))
    images = {image["id"]: image for image in content["images"]}
    if len(images) != len(content["images"]):
        raise UserError(f"{path} lists an image id twice; take the published file")
    candidates = []
    for number in sorted(images.keys() | captions.keys()):
        image = images.get(number, {})
        location = f"{split}/{PurePath(image['file_name']).name}" if image else ""
        licence = licences.get(image.get("license"), {})
        candidates.append(
            Candidate(
                key=key_of(f"{split}-{number:012d}"),
                captions=tuple(captions[number]),
                source=config.name,
                location=location,
                version=version_of(root / location) if image else "",
                columns={
                    "source_split": split,
                    "url": image.get("coco_url", ""),
                    "flickr_url": image.get("flickr_url", ""),
                    "licence": licence.get("name", ""),
                    "licence_url": licence.get("url", ""),
                    "group": f"coco-{number}",  # the same in 2014 and 2017, and in Visual Genome
                },
            )
        )
    return candidates


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json_object(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); unpack it again") from error
    if not {"images", "annotations"} <= content.keys():
        raise UserError(f"{path} is no COCO caption file: 'images' or 'annotations' is missing")
    return content
